//! A table for a person. Columns are sized by the first page; later pages keep at least those widths.

use comfy_table::{ColumnConstraint, ContentArrangement, Table as Grid, Width, presets};
use daemoneye_lib::proto::Row;

use crate::value;

pub(super) struct Table {
    terminal: bool,
    widths: Vec<u16>,
}

impl Table {
    /// On a terminal long cells are wrapped to its width; elsewhere every row stays one line.
    pub(super) const fn new(terminal: bool) -> Self {
        Self { terminal, widths: Vec::new() }
    }

    /// The page as text; the first one with headings.
    pub(super) fn page(&mut self, columns: &[String], rows: &[Row]) -> String {
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
            column.set_padding((0, 2));
        }
        if first {
            self.widths = grid.column_max_content_widths();
        } else if !self.terminal {
            for (column, width) in grid.column_iter_mut().zip(&self.widths) {
                column.set_constraint(ColumnConstraint::LowerBoundary(Width::Fixed(*width)));
            }
        }
        grid.lines().fold(String::new(), |text, line| format!("{text}{}\n", line.trim_end()))
    }
}
