//! Tables for people.

use std::fmt::Write as _;
use std::io::IsTerminal;

use anstyle::{AnsiColor, Style};
use unicode_width::UnicodeWidthStr;

use crate::commands::stdout::printable;

/// What stands where nothing is to be said.
const NOTHING: &str = "-";

/// What the text of a cell means, which a terminal shows by its colour.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Meaning {
    #[default]
    Plain,
    /// It deserves attention.
    Warning,
    /// It is a fault.
    Fault,
}

/// The text of a cell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Cell {
    text: String,
    meaning: Meaning,
}

impl Cell {
    pub(super) fn with(text: impl Into<String>, meaning: Meaning) -> Self {
        Self {
            text: text.into(),
            meaning,
        }
    }
}

impl<T: Into<String>> From<T> for Cell {
    fn from(text: T) -> Self {
        Self::with(text, Meaning::Plain)
    }
}

/// Rows under a heading, with aligned columns.
#[derive(Debug)]
pub(super) struct Table {
    heading: Vec<&'static str>,
    rows: Vec<Vec<Cell>>,
}

impl Table {
    pub(super) fn new(heading: &[&'static str]) -> Self {
        Self {
            heading: heading.to_vec(),
            rows: Vec::new(),
        }
    }

    /// Adds a row with a cell for each column.
    pub(super) fn add(&mut self, row: Vec<Cell>) {
        self.rows.push(row);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Returns the lines, in colour or not.
    pub(super) fn render(self, colour: bool) -> String {
        let heading: Vec<Cell> = self.heading.iter().map(|name| Cell::from(*name)).collect();
        let rows: Vec<Vec<Cell>> = self.rows.into_iter().map(shown).collect();
        let mut widths: Vec<usize> = heading.iter().map(|cell| cell.text.width()).collect();
        for row in &rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = cell.text.width().max(*width);
            }
        }
        let mut text = String::new();
        let bold = Style::new().bold();
        line(&mut text, &heading, &widths, |_| {
            if colour { bold } else { Style::new() }
        });
        for row in &rows {
            line(&mut text, row, &widths, |cell| style(cell.meaning, colour));
        }
        text
    }
}

/// Whether tables on the standard output are printed in colour: on a terminal, unless the environment forbids it.
pub(super) fn colour() -> bool {
    let forbidden = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
        || std::env::var_os("TERM").is_some_and(|terminal| terminal == "dumb");
    !forbidden && std::io::stdout().is_terminal()
}

fn shown(row: Vec<Cell>) -> Vec<Cell> {
    row.into_iter()
        .map(|cell| {
            let text = if cell.text.is_empty() {
                NOTHING.to_owned()
            } else {
                printable(&cell.text)
            };
            Cell::with(text, cell.meaning)
        })
        .collect()
}

fn style(meaning: Meaning, colour: bool) -> Style {
    match meaning {
        Meaning::Warning if colour => AnsiColor::Yellow.on_default(),
        Meaning::Fault if colour => AnsiColor::Red.on_default(),
        _ => Style::new(),
    }
}

fn line(text: &mut String, cells: &[Cell], widths: &[usize], style: impl Fn(&Cell) -> Style) {
    for (place, (cell, width)) in cells.iter().zip(widths).enumerate() {
        let style = style(cell);
        let is_last = place + 1 == cells.len();
        let padding = if is_last {
            0
        } else {
            width.saturating_sub(cell.text.width()) + 2
        };
        // A String takes everything.
        write!(text, "{style}{}{style:#}{:padding$}", cell.text, "").ok();
    }
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_whatever_is_in_them() {
        let mut table = Table::new(&["NAME", "SIZE", "CONDITION"]);
        table.add(vec!["a".into(), "10 GiB".into(), "mounted".into()]);
        table.add(vec![
            "ナ\u{1b}[2J".into(),
            "".into(),
            Cell::with("elsewhere", Meaning::Fault),
        ]);
        let text = table.render(false);
        let lines = [
            "NAME         SIZE    CONDITION",
            "a            10 GiB  mounted",
            "ナ\\u{1b}[2J  -       elsewhere",
        ];
        assert_eq!(text.lines().collect::<Vec<_>>(), lines);
    }

    #[test]
    fn a_terminal_shows_faults_in_colour() {
        let mut table = Table::new(&["CONDITION"]);
        table.add(vec![Cell::with("elsewhere", Meaning::Fault)]);
        assert_eq!(
            table.render(true),
            "\u{1b}[1mCONDITION\u{1b}[0m\n\u{1b}[31melsewhere\u{1b}[0m\n"
        );
    }
}
