//! What stands after OVER and in WINDOW.

use super::{Step, Walker};
use datafusion::sql::sqlparser::ast::{
    Expr, Value, WindowFrame, WindowFrameBound as Bound, WindowFrameUnits, WindowSpec,
};

const COUNTED: &str = "for example ROWS BETWEEN 2 PRECEDING AND CURRENT ROW";
const MEASURED: &str = "for example ORDER BY pid RANGE 5 PRECEDING, or ORDER BY time RANGE INTERVAL '1 minute' PRECEDING; ROWS counts rows";

impl Walker {
    pub(super) fn window_spec(&mut self, spec: &WindowSpec) -> Step {
        let WindowSpec { window_name, partition_by, order_by, window_frame } = spec;
        if let Some(name) = window_name {
            self.ident(name)?;
        }
        for expr in partition_by {
            self.expr(expr)?;
        }
        self.sort_keys(order_by)?;
        let Some(WindowFrame { units, start_bound, end_bound }) = window_frame else { return Ok(()) };
        let end = end_bound.as_ref().unwrap_or(&Bound::CurrentRow);
        for bound in [start_bound, end] {
            if let Bound::Preceding(Some(distance)) | Bound::Following(Some(distance)) = bound {
                self.distance(*units, distance)?;
                // A window that is named may bring its own.
                if *units == WindowFrameUnits::Range && window_name.is_none() && order_by.len() != 1 {
                    return self.refuse_node(
                        distance.as_ref(),
                        "RANGE with a distance needs ORDER BY one column",
                        MEASURED,
                    );
                }
            }
        }
        if *units == WindowFrameUnits::Groups && window_name.is_none() && order_by.is_empty() {
            return self.refuse("GROUPS needs ORDER BY: its groups are rows that it does not tell apart", COUNTED);
        }
        if order(start_bound) > order(end) || matches!(start_bound, Bound::Following(None)) {
            return self.refuse("a frame that ends before it begins is not accepted", COUNTED);
        }
        if matches!(end, Bound::Preceding(None)) {
            return self.refuse("a frame that ends before the first row is not accepted", COUNTED);
        }
        Ok(())
    }

    /// How far from the row it is asked for: known before it runs.
    fn distance(&mut self, units: WindowFrameUnits, distance: &Expr) -> Step {
        let counts = units != WindowFrameUnits::Range;
        let fits = match distance {
            Expr::Value(value) => match &value.value {
                Value::Number(digits, _) => !counts || digits.bytes().all(|digit| digit.is_ascii_digit()),
                Value::SingleQuotedString(_) => !counts,
                _ => false,
            },
            Expr::Interval(_) => !counts,
            _ => false,
        };
        self.expr(distance)?;
        if fits {
            return Ok(());
        }
        if counts {
            return self.refuse_node(distance, format!("{units} counts: its distance is a whole number"), COUNTED);
        }
        self.refuse_node(distance, "the distance of RANGE is a number or an INTERVAL, written out", MEASURED)
    }
}

/// Which comes before which, as far as the words say it.
const fn order(bound: &Bound) -> u8 {
    match bound {
        Bound::Preceding(_) => 0,
        Bound::CurrentRow => 1,
        Bound::Following(_) => 2,
    }
}
