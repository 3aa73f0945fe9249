//! How the output of one group differs from that of the largest.

use std::time::Duration;

use similar::TextDiff;

/// The most lines of a difference that are shown.
const LINES: usize = 200;
/// The longest line of a difference, in characters.
const LINE: usize = 1000;
/// How long two outputs are compared; after that the difference is right, and longer than it could be.
const TIME: Duration = Duration::from_millis(200);

/// What an example wrote, as it is compared.
#[derive(Debug, Clone, Copy)]
pub(super) struct Written<'t> {
    pub(super) stdout: &'t str,
    pub(super) stderr: &'t str,
}

/// A difference in the unified form, empty where there is none, and whether it is cut.
pub(super) fn difference(largest: Written<'_>, this: Written<'_>) -> (String, bool) {
    let mut text = String::new();
    let mut lines = 0;
    for (name, largest, this) in [
        ("stdout", largest.stdout, this.stdout),
        ("stderr", largest.stderr, this.stderr),
    ] {
        if largest == this {
            continue;
        }
        let diff = TextDiff::configure()
            .timeout(TIME)
            .diff_lines(largest, this);
        let unified = diff
            .unified_diff()
            .context_radius(3)
            .header(
                &format!("{name} of the largest group"),
                &format!("{name} of this group"),
            )
            .to_string();
        for line in unified.lines() {
            if lines == LINES {
                return (text, true);
            }
            lines += 1;
            text.extend(line.chars().take(LINE));
            text.push('\n');
        }
    }
    (text, false)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(largest: &str, this: &str) -> (String, bool) {
        difference(
            Written {
                stdout: largest,
                stderr: "",
            },
            Written {
                stdout: this,
                stderr: "",
            },
        )
    }

    #[test]
    fn a_difference_shows_the_lines_that_differ_with_their_surroundings() {
        let (text, cut) = of("a\nb\nc\n", "a\nx\nc\n");
        assert_eq!(
            text,
            "--- stdout of the largest group\n+++ stdout of this group\n@@ -1,3 +1,3 @@\n a\n-b\n+x\n c\n"
        );
        assert!(!cut);
        assert_eq!(of("a", "a"), (String::new(), false));
    }

    #[test]
    fn a_difference_is_bounded_whatever_was_written() {
        let many = |word: &str| {
            (0..5000)
                .map(|n| format!("{word} {n}\n"))
                .collect::<String>()
        };
        let (text, cut) = of(&many("a"), &many("b"));
        assert!(cut && text.lines().count() == LINES);
        let (text, _) = of("", &"x".repeat(60_000));
        assert!(text.len() < 2 * LINE, "{}", text.len());
    }
}
