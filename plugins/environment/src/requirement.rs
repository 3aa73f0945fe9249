//! One requirement against the facts. The message of a check that is not met is what the operator reads behind
//! "Script not supported on target environment: ".

use sluice_fact_comparison::{Condition, Version, is_os, same_arch};
use sluice_plugin_sdk::prelude::*;

pub(crate) fn check(requirement: &Attribute, facts: &[Attribute]) -> Check {
    let key = requirement.key.as_str();
    let answer = match key {
        "os" => texts(requirement).and_then(|wanted| os(wanted, facts)),
        "arch" => texts(requirement).and_then(|wanted| arch(wanted, facts)),
        "commands" => texts(requirement).and_then(|wanted| commands(wanted, facts)),
        "interpreter" => text(requirement).and_then(|wanted| interpreter(wanted, facts)),
        "user" => text(requirement).and_then(|wanted| user(wanted, facts)),
        "disk" => size(requirement).and_then(|wanted| disk(wanted, facts)),
        "memory" => size(requirement).and_then(|wanted| memory(wanted, facts)),
        _ => Err(format!(
            "requirement `{}`, which this version does not know",
            shown(key)
        )),
    };
    match answer {
        Ok(Answer::Met) => Check::met(key, "met"),
        Ok(Answer::Unmet(message)) => Check::unmet(key, message),
        Err(message) => Check::unknown(key, message),
    }
}

enum Answer {
    Met,
    Unmet(String),
}

/// An error is what could not be found out.
type Outcome = Result<Answer, String>;

fn os(wanted: &[String], facts: &[Attribute]) -> Outcome {
    let family = fact_text(facts, "os.family", "operating system")?;
    let distribution = facts.text("os.distribution");
    let fits = |wanted: &String| is_os(wanted, family, distribution);
    answer(wanted.is_empty() || wanted.iter().any(fits), || {
        os_name(family)
    })
}

/// The name that stands in messages.
fn os_name(family: &str) -> String {
    match family.to_ascii_lowercase().as_str() {
        "linux" => "Linux".to_owned(),
        "windows" => "Windows".to_owned(),
        "macos" | "darwin" => "macOS".to_owned(),
        _ => shown(family),
    }
}

fn arch(wanted: &[String], facts: &[Attribute]) -> Outcome {
    let arch = fact_text(facts, "arch", "architecture")?;
    let fits = |wanted: &String| same_arch(wanted, arch);
    answer(wanted.is_empty() || wanted.iter().any(fits), || {
        format!(
            "architecture {} (needs {})",
            shown(arch),
            list(wanted, " or ")
        )
    })
}

fn commands(wanted: &[String], facts: &[Attribute]) -> Outcome {
    let found = facts
        .texts("commands")
        .ok_or("it is not known which commands the machine has")?;
    let missing: Vec<_> = wanted
        .iter()
        .filter(|command| !found.contains(command))
        .cloned()
        .collect();
    let word = if missing.len() == 1 {
        "command"
    } else {
        "commands"
    };
    answer(missing.is_empty(), || {
        format!("{word} not found: {}", list(&missing, ", "))
    })
}

fn interpreter(wanted: &str, facts: &[Attribute]) -> Outcome {
    let condition = Condition::parse(wanted).ok_or_else(|| {
        format!(
            "interpreter requirement `{}` is not a condition like `>=3.9`",
            shown(wanted)
        )
    })?;
    let text = fact_text(facts, "interpreter.version", "interpreter's version")?;
    let version = Version::parse(text)
        .ok_or_else(|| format!("interpreter version `{}` is not a version", shown(text)))?;
    let name = facts.text("interpreter.name").unwrap_or("interpreter");
    answer(condition.holds(&version), || {
        format!("{} {} (needs {})", shown(name), shown(text), shown(wanted))
    })
}

fn user(wanted: &str, facts: &[Attribute]) -> Outcome {
    let users = facts
        .texts("users")
        .ok_or("it is not known which users the machine has")?;
    answer(users.iter().any(|user| user == wanted), || {
        format!("no user `{}`", shown(wanted))
    })
}

fn disk(wanted: i64, facts: &[Attribute]) -> Outcome {
    let free = facts
        .integer("disk.free")
        .ok_or("the machine's free disk space is not known")?;
    answer(free >= wanted, || {
        format!(
            "{} of disk space free (needs {})",
            bytes(free),
            bytes(wanted)
        )
    })
}

fn memory(wanted: i64, facts: &[Attribute]) -> Outcome {
    let available = facts
        .integer("memory.available")
        .or_else(|| facts.integer("memory.total"))
        .ok_or("the machine's available memory is not known")?;
    answer(available >= wanted, || {
        format!(
            "{} of memory available (needs {})",
            bytes(available),
            bytes(wanted)
        )
    })
}

fn answer(met: bool, unmet: impl FnOnce() -> String) -> Outcome {
    Ok(if met {
        Answer::Met
    } else {
        Answer::Unmet(unmet())
    })
}

fn fact_text<'a>(facts: &'a [Attribute], key: &str, what: &str) -> Result<&'a str, String> {
    facts
        .text(key)
        .ok_or_else(|| format!("the machine's {what} is not known"))
}

fn texts(requirement: &Attribute) -> Result<&[String], String> {
    std::slice::from_ref(requirement)
        .texts(&requirement.key)
        .ok_or_else(|| unreadable(requirement, "a list of texts"))
}

fn text(requirement: &Attribute) -> Result<&str, String> {
    std::slice::from_ref(requirement)
        .text(&requirement.key)
        .ok_or_else(|| unreadable(requirement, "a text"))
}

fn size(requirement: &Attribute) -> Result<i64, String> {
    let size = std::slice::from_ref(requirement).integer(&requirement.key);
    size.filter(|&size| size >= 0)
        .ok_or_else(|| unreadable(requirement, "a number of bytes"))
}

fn unreadable(requirement: &Attribute, expected: &str) -> String {
    format!("requirement `{}` is not {expected}", requirement.key)
}

fn list(items: &[String], between: &str) -> String {
    items
        .iter()
        .map(|item| shown(item))
        .collect::<Vec<_>>()
        .join(between)
}

/// Text from a script or a machine, fit for a line of output.
fn shown(text: &str) -> String {
    let mut out: String = text.chars().take(60).flat_map(char::escape_debug).collect();
    if text.chars().nth(60).is_some() {
        out.push_str("...");
    }
    out
}

/// A size in the largest binary unit that leaves at least 1, with one decimal where it is not whole.
fn bytes(size: i64) -> String {
    let units = [("GiB", 1_i64 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    match units.iter().find(|(_, unit)| size >= *unit) {
        Some((name, unit)) if size % unit == 0 => format!("{} {name}", size / unit),
        Some((name, unit)) => format!("{:.1} {name}", size as f64 / *unit as f64),
        None => format!("{size} bytes"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts() -> Vec<Attribute> {
        vec![
            Attribute::of_machine("os.family", "linux"),
            Attribute::of_machine("os.distribution", "debian"),
            Attribute::of_machine("arch", "x86_64"),
            Attribute::of_machine("commands", ["jq"]),
            Attribute::of_machine("interpreter.name", "python3"),
            Attribute::of_machine("interpreter.version", "3.8.18"),
            Attribute::of_machine("users", ["deploy"]),
            Attribute::of_machine("disk.free", 500 << 20),
            Attribute::of_machine("memory.available", 256 << 20),
        ]
    }

    fn checked(key: &str, value: impl Into<Value>) -> (CheckStatus, String) {
        let check = check(&Attribute::of_host(key, value), &facts());
        assert_eq!(check.id, key);
        (check.status, check.message)
    }

    #[test]
    fn what_the_machine_has_is_met() {
        let met = (CheckStatus::Met, "met".to_owned());
        assert_eq!(checked("os", ["windows", "Linux"]), met);
        assert_eq!(checked("os", ["debian"]), met);
        assert_eq!(checked("os", "linux"), met);
        assert_eq!(checked("arch", ["amd64"]), met);
        assert_eq!(checked("commands", ["jq"]), met);
        assert_eq!(checked("interpreter", ">=3.8"), met);
        assert_eq!(checked("user", "deploy"), met);
        assert_eq!(checked("disk", 500 << 20), met);
        assert_eq!(checked("memory", 0), met);
    }

    #[test]
    fn what_it_lacks_is_said_in_words_for_an_operator() {
        let unmet = |message: &str| (CheckStatus::Unmet, message.to_owned());
        assert_eq!(checked("os", ["windows", "macos"]), unmet("Linux"));
        assert_eq!(
            checked("arch", ["arm64", "riscv64"]),
            unmet("architecture x86_64 (needs arm64 or riscv64)")
        );
        assert_eq!(
            checked("commands", ["jq", "yq"]),
            unmet("command not found: yq")
        );
        assert_eq!(
            checked("commands", ["zq", "yq"]),
            unmet("commands not found: zq, yq")
        );
        assert_eq!(
            checked("interpreter", ">=3.9"),
            unmet("python3 3.8.18 (needs >=3.9)")
        );
        assert_eq!(checked("user", "postgres"), unmet("no user `postgres`"));
        assert_eq!(
            checked("disk", 3_i64 << 29),
            unmet("500 MiB of disk space free (needs 1.5 GiB)")
        );
        assert_eq!(
            checked("memory", 1_i64 << 30),
            unmet("256 MiB of memory available (needs 1 GiB)")
        );
    }

    #[test]
    fn the_three_operating_systems_have_one_spelling() {
        for (family, name) in [
            ("linux", "Linux"),
            ("windows", "Windows"),
            ("macos", "macOS"),
        ] {
            let facts = [Attribute::of_machine("os.family", family)];
            let answer = check(&Attribute::of_host("os", ["plan9"]), &facts);
            assert_eq!(
                (answer.status, answer.message.as_str()),
                (CheckStatus::Unmet, name)
            );
        }
    }

    #[test]
    fn an_absent_fact_is_unknown_for_every_requirement() {
        let requirements = [
            Attribute::of_host("os", ["linux"]),
            Attribute::of_host("arch", ["x86_64"]),
            Attribute::of_host("commands", ["jq"]),
            Attribute::of_host("interpreter", ">=1"),
            Attribute::of_host("user", "root"),
            Attribute::of_host("disk", 1),
            Attribute::of_host("memory", 1),
        ];
        for requirement in requirements {
            let answer = check(&requirement, &[]);
            assert_eq!(answer.status, CheckStatus::Unknown, "{}", requirement.key);
            assert!(answer.message.contains("not known"), "{}", answer.message);
        }
    }

    #[test]
    fn an_unknown_or_unreadable_requirement_is_named() {
        let (status, message) = checked("gpu", "yes");
        assert_eq!(status, CheckStatus::Unknown);
        assert!(message.contains("`gpu`"), "{message}");
        for (key, value) in [
            ("disk", Value::from("1GiB")),
            ("memory", Value::from(-1)),
            ("os", Value::from(1)),
            ("user", Value::from(true)),
            ("interpreter", Value::from("newest")),
        ] {
            let (status, message) = checked(key, value);
            assert_eq!(status, CheckStatus::Unknown, "{key}");
            assert!(message.contains(key), "{message}");
        }
    }

    #[test]
    fn hostile_text_stays_on_one_short_line() {
        let (status, message) = checked("user", "é\r\n\u{1b}[31m".repeat(100_000));
        assert_eq!(status, CheckStatus::Unmet);
        assert!(
            message.len() < 1024 && !message.contains(['\n', '\r', '\u{1b}']),
            "{message}"
        );
        let (status, _) = checked(&"k".repeat(1 << 20), "");
        assert_eq!(status, CheckStatus::Unknown);
    }
}
