//! The results as Markdown.

use std::fmt;
use std::fs;
use std::path::Path;

use crate::Result;
use crate::samples::digits;

/// The lines of a file between which the result is written.
const MARKS: [&str; 2] = [
    "<!-- begin of what make bench wrote -->",
    "<!-- end of what make bench wrote -->",
];

/// The result of a run.
pub(crate) struct Report {
    machine: Table,
    sections: Vec<Section>,
}

/// The result of one measurement.
pub(crate) struct Section {
    pub(crate) title: &'static str,
    pub(crate) budgets: Vec<Budget>,
    pub(crate) tables: Vec<Table>,
}

/// A limit, and the used part of it.
pub(crate) struct Budget {
    pub(crate) what: String,
    pub(crate) limit: String,
    pub(crate) measured: String,
    /// 1 is exactly at the limit.
    pub(crate) used: f64,
}

/// A table.
pub(crate) struct Table {
    header: Vec<&'static str>,
    rows: Vec<Vec<String>>,
}

impl Report {
    pub(crate) fn of(machine: Table) -> Self {
        Self {
            machine,
            sections: Vec::new(),
        }
    }

    pub(crate) fn add(&mut self, section: Section) {
        self.sections.push(section);
    }

    /// Replaces the text between the marks of a file.
    pub(crate) fn write_into(&self, path: &Path) -> Result<()> {
        let [begin, end] = MARKS;
        let lost = || format!("{} does not have the lines {begin} and {end}", path.display());
        let text = fs::read_to_string(path)?;
        let (before, rest) = text.split_once(begin).ok_or_else(lost)?;
        let (_, after) = rest.split_once(end).ok_or_else(lost)?;
        fs::write(path, format!("{before}{begin}\n\n{self}\n{end}{after}"))?;
        Ok(())
    }

    fn budgets(&self) -> Table {
        let mut table = Table::new(["budget", "limit", "measured", "of the limit", ""]);
        for budget in self.sections.iter().flat_map(|section| &section.budgets) {
            let verdict = if budget.used <= 1.0 { "within" } else { "**over**" };
            let used = format!("{} %", digits(budget.used * 100.0));
            table.row([&budget.what, &budget.limit, &budget.measured, &used, verdict]);
        }
        table
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "### Machine\n\n{}\n### Budgets\n\n{}",
            self.machine,
            self.budgets()
        )?;
        for (number, section) in self.sections.iter().enumerate() {
            let gap = if number == 0 { "" } else { "\n" };
            writeln!(f, "{gap}### {}", section.title)?;
            for table in &section.tables {
                write!(f, "\n{table}")?;
            }
        }
        Ok(())
    }
}

impl Table {
    pub(crate) fn new<const N: usize>(header: [&'static str; N]) -> Self {
        Self {
            header: header.to_vec(),
            rows: Vec::new(),
        }
    }

    pub(crate) fn row<const N: usize>(&mut self, cells: [impl Into<String>; N]) {
        self.add(cells.into_iter().map(Into::into).collect());
    }

    /// Adds a row with a cell for each column.
    pub(crate) fn add(&mut self, cells: Vec<String>) {
        self.rows.push(cells);
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "| {} |", self.header.join(" | "))?;
        writeln!(f, "|{}", "---|".repeat(self.header.len()))?;
        self.rows
            .iter()
            .try_for_each(|row| writeln!(f, "| {} |", row.join(" | ")))
    }
}
