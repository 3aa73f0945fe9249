//! How much one source may ask of a host, so that nobody keeps everybody else out.
//!
//! A source is an IPv4 address, or an IPv6 network of 56 bits, which is what a provider gives to one customer (RIPE-690).

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crate::limits;

/// Whose address it is, as far as that can be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Source(IpAddr);

impl Source {
    pub(super) fn of(address: SocketAddr) -> Self {
        const NETWORK: u128 = u128::MAX << (128 - 56);
        // A socket for both families shows IPv4 addresses as IPv6 ones.
        match address.ip().to_canonical() {
            IpAddr::V6(address) => Self(Ipv6Addr::from_bits(address.to_bits() & NETWORK).into()),
            address => Self(address),
        }
    }
}

/// Places that are held for a while: so many in all, and so many for each source.
#[derive(Debug)]
pub(super) struct Places {
    most: usize,
    most_of_source: usize,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    total: usize,
    /// No entry where there is none.
    of: HashMap<Source, usize>,
}

/// A place. Dropped, it is free again.
#[derive(Debug)]
pub(super) struct Place {
    places: Arc<Places>,
    source: Source,
}

impl Places {
    pub(super) fn new(most: usize, most_of_source: usize) -> Arc<Self> {
        Arc::new(Self {
            most,
            most_of_source,
            taken: Mutex::default(),
        })
    }

    /// How many places are taken: in all, and by this source.
    pub(super) fn taken(&self, source: Source) -> (usize, usize) {
        let taken = lock(&self.taken);
        let own = taken.of.get(&source).copied().unwrap_or_default();
        (taken.total, own)
    }

    /// A place for this source, if there is one.
    pub(super) fn take(self: &Arc<Self>, source: Source) -> Option<Place> {
        let mut taken = lock(&self.taken);
        if taken.total >= self.most {
            return None;
        }
        let own = taken.of.entry(source).or_default();
        if *own >= self.most_of_source {
            return None;
        }
        *own += 1;
        taken.total += 1;
        Some(Place {
            places: Arc::clone(self),
            source,
        })
    }
}

impl Place {
    pub(super) const fn source(&self) -> Source {
        self.source
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = lock(&self.places.taken);
        taken.total -= 1;
        if let Some(own) = taken.of.get_mut(&self.source) {
            *own -= 1;
            if *own == 0 {
                taken.of.remove(&self.source);
            }
        }
    }
}

/// How often a source may try in vain: some times at once, and then as often as time gives tries back.
#[derive(Debug, Default)]
pub(super) struct Tries(Mutex<HashMap<Source, Left>>);

#[derive(Debug, Clone, Copy)]
struct Left {
    tries: u32,
    /// When the last one was given back.
    since: Instant,
}

/// With so many sources those are forgotten that have all their tries again. It takes a handshake to become one.
const MANY: usize = 1024;

impl Tries {
    /// Takes a try, if there is one left at `now`.
    pub(super) fn take(&self, source: Source, now: Instant) -> bool {
        let mut sources = lock(&self.0);
        if sources.len() >= MANY {
            sources.retain(|_, left| left.at(now).tries < limits::ENROLLMENT_TRIES);
        }
        let full = Left {
            tries: limits::ENROLLMENT_TRIES,
            since: now,
        };
        let left = sources.entry(source).or_insert(full);
        *left = left.at(now);
        match left.tries.checked_sub(1) {
            Some(tries) => {
                left.tries = tries;
                true
            }
            None => false,
        }
    }

    /// It was not in vain.
    pub(super) fn give_back(&self, source: Source) {
        if let Some(left) = lock(&self.0).get_mut(&source) {
            left.tries = (left.tries + 1).min(limits::ENROLLMENT_TRIES);
        }
    }
}

impl Left {
    /// With what time has given back until `now`.
    fn at(self, now: Instant) -> Self {
        let every = limits::ENROLLMENT_TRY_EVERY;
        let given = now.saturating_duration_since(self.since).as_nanos() / every.as_nanos();
        let given = u32::try_from(given).unwrap_or(u32::MAX);
        let tries = self.tries.saturating_add(given);
        if tries >= limits::ENROLLMENT_TRIES {
            return Self {
                tries: limits::ENROLLMENT_TRIES,
                since: now,
            };
        }
        Self {
            tries,
            since: self.since + every * given,
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Whole after every statement here, so a panic elsewhere does not make it less true.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn source(address: &str) -> Source {
        Source::of(SocketAddr::new(address.parse().expect("an address"), 1))
    }

    #[test]
    fn a_source_is_an_address_of_ipv4_and_a_customers_network_of_ipv6() {
        assert_eq!(source("192.0.2.1"), source("::ffff:192.0.2.1"));
        assert_ne!(source("192.0.2.1"), source("192.0.2.2"));
        assert_eq!(
            source("2001:db8:0:1200::1"),
            source("2001:db8:0:12ff:ffff::9")
        );
        assert_ne!(source("2001:db8:0:1200::1"), source("2001:db8:0:1300::1"));
    }

    #[test]
    fn one_source_cannot_have_every_place_and_a_place_comes_back() {
        let places = Places::new(5, 3);
        let (one, other) = (source("192.0.2.1"), source("192.0.2.2"));
        let mut held: Vec<_> = std::iter::from_fn(|| places.take(one)).collect();
        assert_eq!((held.len(), places.taken(one)), (3, (3, 3)));
        held.extend(std::iter::from_fn(|| places.take(other)));
        assert_eq!((held.len(), places.taken(other)), (5, (5, 2)));
        assert!(places.take(source("192.0.2.3")).is_none(), "it is full");
        held.remove(0);
        assert!(places.take(one).is_some());
        drop(held);
        assert_eq!(places.taken(one), (0, 0));
        assert!(lock(&places.taken).of.is_empty(), "nothing is kept");
    }

    #[test]
    fn tries_in_vain_run_out_and_come_back_one_by_one() {
        let (tries, start) = (Tries::default(), Instant::now());
        let (one, other) = (source("192.0.2.1"), source("192.0.2.2"));
        let most = limits::ENROLLMENT_TRIES;
        let take_all = |now| (0..100).filter(|_| tries.take(one, now)).count();
        assert_eq!(take_all(start), most as usize);
        assert!(tries.take(other, start), "another's are its own");
        tries.give_back(one);
        assert_eq!(take_all(start), 1);
        let every = limits::ENROLLMENT_TRY_EVERY;
        assert_eq!(take_all(start + every - Duration::from_nanos(1)), 0);
        assert_eq!(take_all(start + every), 1);
        // Half of a pause is not lost.
        assert_eq!(take_all(start + every * 5 / 2), 1);
        assert_eq!(take_all(start + every * 3), 1);
        assert_eq!(take_all(start + every * 1000), most as usize);
        tries.give_back(other);
        tries.give_back(other);
        assert_eq!(
            lock(&tries.0)[&other].tries,
            most,
            "never more than at the start"
        );
    }

    #[test]
    fn sources_that_have_all_their_tries_again_are_forgotten() {
        let (tries, start) = (Tries::default(), Instant::now());
        let later = start + limits::ENROLLMENT_TRY_EVERY;
        for n in 0..MANY {
            let address = Ipv6Addr::from_bits((n as u128) << 72);
            tries.take(Source::of(SocketAddr::new(address.into(), 1)), start);
        }
        assert_eq!(lock(&tries.0).len(), MANY);
        tries.take(source("192.0.2.1"), later);
        assert_eq!(lock(&tries.0).len(), 1);
    }
}
