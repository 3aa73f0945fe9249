//! `docs/cli/`: a page for each command, made from the command line itself, so that it cannot be wrong.

use std::collections::BTreeMap;
use std::path::Path;

use clap::CommandFactory as _;

use crate::command_line::CommandLine;

/// Set it to write the pages anew: `SLUICE_WRITE_DOCS=1 cargo test -p sluice-cli reference`
const WRITE: &str = "SLUICE_WRITE_DOCS";

#[test]
fn every_command_has_a_page_that_is_its_own_help() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/cli");
    let mut command = CommandLine::command().term_width(100);
    command.build();
    let mut pages = BTreeMap::new();
    let index = page(&mut command, "sluice", &mut pages);
    pages.insert("README.md".to_owned(), index);
    if std::env::var_os(WRITE).is_some() {
        std::fs::remove_dir_all(&folder).expect("removes");
        std::fs::create_dir(&folder).expect("makes");
        for (name, text) in &pages {
            std::fs::write(folder.join(name), text).expect("writes");
        }
    }
    let there: BTreeMap<_, _> = std::fs::read_dir(&folder)
        .expect("reads")
        .map(|entry| {
            let entry = entry.expect("reads");
            let text = std::fs::read_to_string(entry.path()).expect("is text");
            (entry.file_name().to_string_lossy().into_owned(), text)
        })
        .collect();
    for name in there.keys() {
        assert!(
            pages.contains_key(name),
            "{name} is of no command; set {WRITE}=1 to write the pages anew"
        );
    }
    for (name, text) in &pages {
        assert!(
            there.get(name) == Some(text),
            "{name} is not the command's help; set {WRITE}=1 to write the pages anew"
        );
    }
}

/// The text for a command; those of its commands go into `pages`.
fn page(command: &mut clap::Command, name: &str, pages: &mut BTreeMap<String, String>) -> String {
    let help = command.render_long_help().to_string();
    let mut text = format!("# {name}\n\n```text\n{}\n```\n", help.trim_end());
    let mut links = String::new();
    for inner in command.get_subcommands_mut() {
        if inner.is_hide_set() {
            continue;
        }
        let name = format!("{name} {}", inner.get_name());
        let file = format!(
            "{}.md",
            name.trim_start_matches("sluice ").replace(' ', "-")
        );
        let inner = page(inner, &name, pages);
        links.push_str(&format!("- [{name}]({file})\n"));
        pages.insert(file, inner);
    }
    if !links.is_empty() {
        text.push('\n');
        text.push_str(&links);
    }
    text
}
