//! A table for a person. Columns are sized by the first page; later pages keep at least those widths. Where a terminal is too
//! narrow for the columns, rows stand as those of `line`.

use comfy_table::{ColumnConstraint, ContentArrangement, Table as Grid, Width, presets};
use daemoneye_lib::proto::Row;

use super::line;
use crate::value;

/// A column that gets fewer characters than this, and has more to show, cannot be read.
const READABLE: u16 = 12;
/// Blanks between two columns.
const GAP: u16 = 2;

pub(super) struct Table {
    terminal: bool,
    /// Of the terminal, in characters.
    width: Option<u16>,
    widths: Vec<u16>,
    /// Whether rows are shown one field per line.
    tall: bool,
}

impl Table {
    /// On a terminal long cells are wrapped to its width; elsewhere every row stays one line.
    pub(super) fn new(terminal: bool) -> Self {
        let width = if terminal { Grid::new().width() } else { None };
        Self { terminal, width, widths: Vec::new(), tall: false }
    }

    /// The page as text; the first one with headings.
    pub(super) fn page(&mut self, columns: &[String], rows: &[Row]) -> String {
        if self.tall {
            return format!("\n{}", line::page(columns, rows));
        }
        let first = self.widths.is_empty();
        let mut grid = Grid::new();
        grid.load_style(presets::NOTHING);
        let dynamic = if self.terminal { ContentArrangement::Dynamic } else { ContentArrangement::Disabled };
        grid.set_content_arrangement(dynamic);
        if first {
            grid.set_header(columns.iter().map(|column| value::harmless(column)));
        }
        for row in rows {
            grid.add_row(row.values.iter().map(|cell| value::harmless(&value::text(cell))));
        }
        for column in grid.column_iter_mut() {
            column.set_padding((0, GAP));
        }
        if first {
            self.widths = grid.column_max_content_widths();
            self.tall = !rows.is_empty() && self.width.is_some_and(|width| !fits(&self.widths, width));
            if self.tall {
                return line::page(columns, rows);
            }
        } else if !self.terminal {
            for (column, width) in grid.column_iter_mut().zip(&self.widths) {
                column.set_constraint(ColumnConstraint::LowerBoundary(Width::Fixed(*width)));
            }
        }
        grid.lines().fold(String::new(), |text, line| format!("{text}{}\n", line.trim_end()))
    }
}

fn fits(columns: &[u16], width: u16) -> bool {
    let needed = |column: &u16| u32::from((*column).min(READABLE).saturating_add(GAP));
    columns.iter().map(needed).sum::<u32>() <= u32::from(width)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_too_wide_for_the_terminal_stands_one_field_per_line() {
        let columns: Vec<String> = (0..9).map(|at| format!("long_column_{at}")).collect();
        let row = |name: &str| Row { values: columns.iter().map(|_| value::of_text(name)).collect() };
        let on = |width| Table { width, ..Table::new(false) };
        let mut narrow = on(Some(100));
        let first = narrow.page(&columns, &[row("a"), row("b\u{1b}")]);
        assert!(first.starts_with("long_column_0 = a\nlong_column_1 = a\n"), "{first}");
        assert!(first.contains("a\n\nlong_column_0 = b\\u{1b}\n"), "{first}");
        assert!(narrow.page(&columns, &[row("c")]).starts_with("\nlong_column_0 = c\n"));
        for roomy in [None, Some(200)] {
            assert_eq!(on(roomy).page(&columns, &[row("a")]).lines().count(), 2, "{roomy:?}");
        }
    }
}
