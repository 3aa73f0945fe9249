//! Detection and false alarms. Arguments: a file of JSON lines (`technique`, `language`, `script`, `name`), then files
//! or directories with benign scripts. With `--show missed|alarms` it lists what it got wrong.
//!
//! Each row of the file counts for its technique; detection is the share with a finding of at least medium. A false
//! alarm is a benign script with a finding of at least high.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use sluice_plugin_scanner::ScannerGate;
use sluice_plugin_sdk::prelude::*;

fn main() {
    let mut arguments: Vec<String> = std::env::args().skip(1).collect();
    let show = arguments
        .iter()
        .position(|a| a == "--show")
        .map(|at| arguments.drain(at..at + 2).nth(1).unwrap_or_default());
    let Some((corpus, benign)) = arguments.split_first() else {
        eprintln!("usage: measure CORPUS.jsonl [BENIGN]... [--show missed|alarms|medium]");
        std::process::exit(2);
    };
    let gate = match ScannerGate::configure(&Settings::default(), &[]) {
        Ok(gate) => gate,
        Err(error) => {
            eprintln!("the scanner cannot be configured: {error:?}");
            std::process::exit(1);
        }
    };
    let show = show.unwrap_or_default();
    detection(&gate, corpus, &show);
    alarms(&gate, benign, &show);
}

fn detection(gate: &ScannerGate, corpus: &str, show: &str) {
    let text = std::fs::read_to_string(corpus).unwrap_or_default();
    let mut techniques: BTreeMap<String, [usize; 3]> = BTreeMap::new();
    let mut languages: BTreeMap<String, [usize; 3]> = BTreeMap::new();
    for row in text
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
    {
        let field = |name: &str| row[name].as_str().unwrap_or_default().to_owned();
        let language = if field("language") == "powershell" {
            "powershell"
        } else {
            "shell"
        };
        let worst = worst(gate, language, &field("script"));
        let technique = field("technique")
            .split('.')
            .next()
            .unwrap_or_default()
            .to_owned();
        for count in [
            techniques.entry(technique).or_default(),
            languages.entry(language.to_owned()).or_default(),
        ] {
            count[0] += 1;
            count[1] += usize::from(worst >= Some(Severity::Medium));
            count[2] += usize::from(worst >= Some(Severity::High));
        }
        if show == "missed" && worst < Some(Severity::Medium) {
            println!(
                "{} {}: {:?}",
                field("technique"),
                field("name"),
                field("script").chars().take(220).collect::<String>()
            );
        }
    }
    for (name, [rows, medium, high]) in languages.iter().chain(&techniques) {
        println!(
            "{name:12} {rows:4} rows  {medium:4} at medium or above ({:3} %)  {high:4} at high",
            medium * 100 / rows.max(&1)
        );
    }
}

fn alarms(gate: &ScannerGate, roots: &[String], show: &str) {
    let mut files = Vec::new();
    roots
        .iter()
        .for_each(|root| collect(Path::new(root), 6, &mut files));
    let mut counts: BTreeMap<&str, [usize; 3]> = BTreeMap::new();
    for file in files {
        let Ok(bytes) = std::fs::read(&file) else {
            continue;
        };
        let Some(language) = language(&file, &bytes) else {
            continue;
        };
        let Ok(text) = String::from_utf8(bytes) else {
            continue;
        };
        let findings = scan(gate, language, &text);
        let worst = findings.first().map(|finding| finding.severity);
        let count = counts.entry(language).or_default();
        count[0] += 1;
        count[1] += usize::from(worst >= Some(Severity::Medium));
        count[2] += usize::from(worst >= Some(Severity::High));
        let from = match show {
            "alarms" => Severity::High,
            "medium" => Severity::Medium,
            _ => continue,
        };
        for finding in findings.iter().filter(|finding| finding.severity >= from) {
            let span = finding
                .primary
                .map_or(0..0, |span| span.start as usize..span.end as usize);
            println!(
                "{} {} {:?}",
                file.display(),
                finding.rule,
                text.get(span)
                    .unwrap_or_default()
                    .chars()
                    .take(160)
                    .collect::<String>()
            );
        }
    }
    for (name, [scripts, medium, high]) in counts {
        println!(
            "benign {name:10} {scripts:5} scripts  {medium:4} at medium  {high:4} at high ({:.2} %)",
            high as f64 * 100.0 / scripts as f64
        );
    }
}

fn collect(path: &Path, depth: usize, files: &mut Vec<PathBuf>) {
    let Ok(kind) = std::fs::symlink_metadata(path) else {
        return;
    };
    if kind.is_file() && kind.len() <= 1 << 20 {
        files.push(path.to_owned());
    } else if kind.is_dir() && depth > 0 {
        let mut entries: Vec<_> = std::fs::read_dir(path)
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.path())
            .collect();
        entries.sort();
        entries
            .iter()
            .for_each(|entry| collect(entry, depth - 1, files));
    }
}

fn language(file: &Path, bytes: &[u8]) -> Option<&'static str> {
    let first = bytes
        .split(|&b| b == b'\n')
        .next()
        .map(String::from_utf8_lossy)
        .unwrap_or_default();
    let ending = file
        .extension()
        .and_then(|e| e.to_str())
        .unwrap_or_default();
    let named = |name: &str| first.starts_with("#!") && first.contains(name);
    if ending == "ps1" || ending == "psm1" {
        Some("powershell")
    } else if ["py"].contains(&ending) || named("python") {
        Some("python")
    } else if ending == "rb" || named("ruby") {
        Some("ruby")
    } else if ["pl", "pm"].contains(&ending) || named("perl") {
        Some("perl")
    } else if named("node") {
        Some("javascript")
    } else if ending == "sh"
        || named("sh")
        || ["preinst", "postinst", "prerm", "postrm"].contains(&ending)
    {
        Some("shell")
    } else {
        None
    }
}

fn scan(gate: &ScannerGate, language: &str, text: &str) -> Vec<Finding> {
    gate.scan(&Bundle::of_script(language, text), &Job::default())
        .unwrap_or_default()
}

fn worst(gate: &ScannerGate, language: &str, text: &str) -> Option<Severity> {
    scan(gate, language, text)
        .first()
        .map(|finding| finding.severity)
}
