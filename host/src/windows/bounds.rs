//! When an operation may start, where windows say so.

use std::sync::Arc;

use super::Calendar;
use crate::clock::UnixMillis;

/// How often it is looked on from one window's opening to another's before they are taken for never open together.
const MOST_LOOKS: usize = 1000;

/// A window's name and times.
#[derive(Debug, Clone, PartialEq)]
pub struct Window {
    /// What it is called.
    pub name: String,
    /// When it is open.
    pub calendar: Calendar,
}

/// The windows that an operation is held to: it may start while at least one of each set is open. Without a set it always may.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Bounds {
    sets: Vec<Vec<Arc<Window>>>,
}

/// Whether an operation may start, as far as windows go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// No window is about it.
    Free,
    /// It may, until a moment.
    Open {
        /// From which on it may not.
        closes: UnixMillis,
    },
    /// It may not.
    Closed(Closed),
}

/// What an operation waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Closed {
    /// The window's name.
    pub window: String,
    /// When it may start; none where that is never.
    pub opens: Option<UnixMillis>,
}

impl Bounds {
    /// Adds a set, of which at least one must be open. An empty one asks for nothing.
    #[must_use]
    pub fn and(mut self, set: Vec<Arc<Window>>) -> Self {
        if !set.is_empty() {
            self.sets.push(set);
        }
        self
    }

    /// How it stands at `now`.
    #[must_use]
    pub fn standing(&self, now: UnixMillis) -> Standing {
        if self.sets.is_empty() {
            return Standing::Free;
        }
        let Some(shut) = self.sets.iter().find(|set| !is_open(set, now)) else {
            let closes = self.sets.iter().map(|set| closes(set, now)).min();
            return Standing::Open {
                closes: closes.unwrap_or(now),
            };
        };
        let opens = self.opens(now);
        // The window that is open then. Where there is none, any of those that it waits for.
        let named = shut
            .iter()
            .find(|window| opens.is_some_and(|opens| window.calendar.is_open(opens)));
        let window = named.or(shut.first()).map(|window| window.name.clone());
        Standing::Closed(Closed {
            window: window.unwrap_or_default(),
            opens,
        })
    }

    /// The first moment from `from` on in which an operation may start, and the first after it in which it may not.
    #[must_use]
    pub fn next(&self, from: UnixMillis) -> Option<(UnixMillis, UnixMillis)> {
        let opens = self.opens(from)?;
        match self.standing(opens) {
            Standing::Open { closes } => Some((opens, closes)),
            Standing::Free | Standing::Closed(_) => None,
        }
    }

    /// The first moment from `from` on in which an operation may start.
    #[must_use]
    pub fn opens(&self, from: UnixMillis) -> Option<UnixMillis> {
        let mut at = from;
        for _ in 0..MOST_LOOKS {
            let mut latest = at;
            for set in &self.sets {
                let first = set
                    .iter()
                    .filter_map(|window| window.calendar.opens(at))
                    .min();
                latest = latest.max(first?);
            }
            if latest == at {
                return Some(at);
            }
            at = latest;
        }
        None
    }
}

fn is_open(set: &[Arc<Window>], at: UnixMillis) -> bool {
    set.iter().any(|window| window.calendar.is_open(at))
}

/// When none of the set is open any more.
fn closes(set: &[Arc<Window>], open: UnixMillis) -> UnixMillis {
    let mut at = open;
    for _ in 0..MOST_LOOKS {
        let open = set.iter().filter(|window| window.calendar.is_open(at));
        match open.map(|window| window.calendar.closes(at)).max() {
            Some(closes) => at = closes,
            None => break,
        }
    }
    at
}

#[cfg(test)]
mod tests {
    use sluice_protocol::units::Span;

    use super::*;
    use crate::schedules::Zone;

    const MINUTE: i64 = 60_000;
    /// A midnight.
    const DAY: UnixMillis = UnixMillis(1_795_046_400_000);

    fn window(name: &str, cron: &str, minutes: u64) -> Arc<Window> {
        let lasts = Span::seconds(minutes * 60);
        Arc::new(Window {
            name: name.to_owned(),
            calendar: Calendar::new(cron, lasts, Zone::UTC, DAY).expect("a window"),
        })
    }

    fn minute(minutes: i64) -> UnixMillis {
        UnixMillis(DAY.0 + minutes * MINUTE)
    }

    fn closed(window: &str, opens: i64) -> Standing {
        Standing::Closed(Closed {
            window: window.to_owned(),
            opens: Some(minute(opens)),
        })
    }

    #[test]
    fn without_windows_an_operation_may_always_start() {
        assert_eq!(Bounds::default().standing(DAY), Standing::Free);
        assert_eq!(
            Bounds::default().and(Vec::new()).standing(DAY),
            Standing::Free
        );
    }

    #[test]
    fn windows_of_one_set_are_a_union() {
        let set = vec![
            window("one", "0 2 * * *", 60),
            window("two", "30 2 * * *", 60),
            window("late", "0 4 * * *", 10),
        ];
        let bounds = Bounds::default().and(set);
        assert_eq!(bounds.standing(DAY), closed("one", 120));
        // Where one closes another is open.
        for open in [120, 150, 179, 180, 209] {
            let closes = minute(210);
            assert_eq!(bounds.standing(minute(open)), Standing::Open { closes });
        }
        assert_eq!(bounds.standing(minute(210)), closed("late", 240));
    }

    #[test]
    fn of_each_set_one_window_must_be_open() {
        let bounds = Bounds::default()
            .and(vec![window("asked", "0 2 * * *", 60)])
            .and(vec![window("required", "30 2 * * *", 60)]);
        assert_eq!(bounds.standing(DAY), closed("asked", 150));
        assert_eq!(bounds.standing(minute(125)), closed("required", 150));
        let closes = minute(180);
        assert_eq!(bounds.standing(minute(150)), Standing::Open { closes });
        assert_eq!(bounds.standing(minute(185)), closed("asked", 24 * 60 + 150));
    }

    #[test]
    fn windows_that_are_never_open_together_say_so() {
        let bounds = Bounds::default()
            .and(vec![window("asked", "0 2 * * *", 60)])
            .and(vec![window("required", "0 3 * * *", 60)]);
        let Standing::Closed(closed) = bounds.standing(DAY) else {
            panic!("it is open");
        };
        assert_eq!(closed.opens, None);
    }
}
