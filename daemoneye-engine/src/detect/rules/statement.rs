//! The SELECT of a rule or an exception: the guard, then what decides it; and where it is refused, every problem that can be told.

use datafusion::sql::sqlparser::tokenizer::Location;

use super::super::compile::{self, Problem};
use super::super::window;
use super::lists::Lists;
use super::mend::Mending;
use crate::sql::{self, Checked, Parsed, SqlRefusal};

/// Problems of one SELECT that are told one by one: more of them are one mistake made over and over.
const MOST_TOLD: usize = 20;

/// How often one SELECT is looked at. A look at a window rule plans it, which takes milliseconds.
const MOST_LOOKS: usize = 100;

/// The same in bytes of the SELECT: a look at one of 256 KiB takes tens of milliseconds.
const MOST_BYTES: usize = 4 * 1024 * 1024;

/// Which text is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Look {
    /// The one that was written.
    Written,
    /// One with blanks in it, to find what else is wrong.
    Mended {
        /// Whether the one that was written needs a window.
        needs_window: bool,
    },
}

/// What `decide` makes of the SELECT, which is called again for each mended one.
///
/// # Errors
/// Every problem that can be told, in the order of the places. What follows from another problem is none.
pub(super) fn decided<T: Send>(
    sql: &str,
    lists: &Lists,
    decide: impl Fn(&Checked, Look) -> Result<T, Problem> + Sync,
) -> Result<(T, Checked), Vec<Problem>> {
    let here = || Ok(decided_here(sql, lists, &decide));
    sql::on_large_stack(here).unwrap_or_else(|refusal| Err(vec![refusal.into()]))
}

fn decided_here<T>(
    sql: &str,
    lists: &Lists,
    decide: &dyn Fn(&Checked, Look) -> Result<T, Problem>,
) -> Result<(T, Checked), Vec<Problem>> {
    let look = |checked: Result<Checked, SqlRefusal>, look: Look| {
        let checked = checked?;
        Ok::<_, Problem>((decide(&checked, look)?, checked))
    };
    let first = match look(sql::check_rule(sql, compile::known::instead, lists), Look::Written) {
        Ok(decided) => return Ok(decided),
        Err(problem) => problem,
    };
    // Text that cannot be read as SQL has no rest that could be looked at.
    let Ok(mut parsed) = Parsed::rule(sql) else { return Err(vec![first]) };
    let Some(needs_window) = parsed.query().map(|query| window::needs_window(query)) else {
        return Err(vec![first]);
    };
    let (mut mending, mut told, mut problem) = (Mending::default(), Vec::new(), first);
    let most = MOST_LOOKS.min(MOST_BYTES / sql.len().max(1)).max(1);
    for _ in 0..most {
        let at = Location { line: problem.line, column: problem.column };
        let Some(mended) = parsed.query().map(|query| mending.mend(query, at)) else { break };
        let is_of_size = compile::is_of_size(&problem);
        if mended.is_new {
            told.push(problem);
        }
        if is_of_size || !mended.goes_on {
            return Err(counted(told, is_of_size));
        }
        let checked = parsed.clone().check_rule(compile::known::instead, lists);
        let judged = if mending.knows_columns() {
            look(checked, Look::Mended { needs_window }).map(drop)
        } else {
            checked.map(drop).map_err(Problem::from)
        };
        match judged {
            Ok(()) => return Err(counted(told, false)),
            Err(next) => problem = next,
        }
    }
    Err(counted(told, true))
}

/// In the order of the places, the further ones as a number. `is_cut`: not all of the SELECT was looked at.
fn counted(mut told: Vec<Problem>, is_cut: bool) -> Vec<Problem> {
    told.sort_by_key(|problem| (problem.line, problem.column));
    let more = told.len().saturating_sub(MOST_TOLD);
    told.truncate(MOST_TOLD);
    let message = match (more, is_cut) {
        (0, false) => return told,
        (0, true) => "the rest of this SELECT was not looked at".to_owned(),
        (more, false) => format!("and {more} more problems in this SELECT"),
        (more, true) => format!("and at least {more} more problems in this SELECT"),
    };
    let (line, column) = told.last().map_or((0, 0), |last| (last.line, last.column));
    told.push(Problem { line, column, message, hint: Some("mend those above first".to_owned()) });
    told
}
