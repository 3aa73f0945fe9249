//! Lists: a table on a terminal, tabs in a pipe, one object on each line with `--json`.

use std::io::IsTerminal as _;

use serde::Serialize;
use sluice_protocol::ending::one_line;

use super::print::{json_line, print};
use crate::error::Error;

/// One field of a row.
type Cell = String;

/// How a list is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Style {
    Table,
    Tabs,
    Json,
}

/// A list that is written part by part.
#[derive(Debug)]
pub(crate) struct List {
    header: &'static [&'static str],
    style: Style,
    header_written: bool,
}

impl List {
    /// A list for stdout, as what it is: a terminal, or something else.
    pub(crate) fn new(header: &'static [&'static str], json: bool) -> Self {
        let style = if json {
            Style::Json
        } else if std::io::stdout().is_terminal() {
            Style::Table
        } else {
            Style::Tabs
        };
        Self {
            header,
            style,
            header_written: false,
        }
    }

    /// Writes one part. `row` gives the cells of an item, in the header's order.
    pub(crate) fn write<T: Serialize>(
        &mut self,
        items: &[T],
        row: impl Fn(&T) -> Vec<Cell>,
    ) -> Result<(), Error> {
        if self.style == Style::Json {
            return items.iter().try_for_each(json_line);
        }
        let rows: Vec<Vec<Cell>> = items
            .iter()
            .map(|item| row(item).into_iter().map(|cell| one_line(&cell)).collect())
            .collect();
        let header = std::mem::replace(&mut self.header_written, true);
        print(&if self.style == Style::Table {
            table(self.header, &rows, !header)
        } else {
            tabs(&rows)
        })
    }
}

fn tabs(rows: &[Vec<Cell>]) -> String {
    rows.iter().map(|row| row.join("\t") + "\n").collect()
}

fn table(header: &[&str], rows: &[Vec<Cell>], with_header: bool) -> String {
    let header: Vec<Cell> = header.iter().map(|word| word.to_uppercase()).collect();
    let width = |column: usize| {
        let cells = rows
            .iter()
            .filter_map(|row| row.get(column))
            .chain(header.get(column));
        cells
            .map(|cell| cell.chars().count())
            .max()
            .unwrap_or_default()
    };
    let widths: Vec<_> = (0..header.len()).map(width).collect();
    let mut text = String::new();
    for row in with_header.then_some(&header).into_iter().chain(rows) {
        let cells = row
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:width$}"));
        text.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        text.push('\n');
    }
    text
}

/// One thing, as lines of name and value; absent values are left out.
pub(crate) fn record(fields: &[(&str, Option<String>)]) -> String {
    let width = fields
        .iter()
        .map(|(name, _)| name.len() + 1)
        .max()
        .unwrap_or_default();
    fields
        .iter()
        .filter_map(|(name, value)| value.as_ref().map(|value| (name, value)))
        .map(|(name, value)| format!("{:width$} {}\n", format!("{name}:"), one_line(value)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows() -> Vec<Vec<Cell>> {
        [["web-1", "connected"], ["é", ""]]
            .map(|row| row.map(str::to_owned).to_vec())
            .to_vec()
    }

    #[test]
    fn a_table_has_a_header_and_columns() {
        assert_eq!(
            table(&["name", "state"], &rows(), true),
            "NAME   STATE\nweb-1  connected\né\n"
        );
        assert_eq!(
            table(&["name", "state"], &rows(), false),
            "web-1  connected\né\n"
        );
    }

    #[test]
    fn a_pipe_gets_tabs_and_no_header() {
        assert_eq!(tabs(&rows()), "web-1\tconnected\né\t\n");
    }

    #[test]
    fn a_record_leaves_out_what_is_absent() {
        assert_eq!(
            record(&[("name", Some("a\nb".to_owned())), ("x", None)]),
            "name: a b\n"
        );
    }
}
