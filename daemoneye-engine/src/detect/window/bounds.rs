//! How far a rule looks back: what its conditions say about the distance between the times of its scans and now.
//!
//! Each condition `x.time - y.time <= c` is an edge, the shortest path between two points is the tightest bound that follows from
//! all of them. What holds only where an outer join or a NOT EXISTS finds a row says nothing about the rows that find none, so
//! those edges are kept apart.

use daemoneye_lib::columns::PROCESS_EVENTS;
use datafusion::sql::sqlparser::ast::{BinaryOperator, DataType, Expr, Function, Interval, Value, ValueWithSpan};

use datafusion::sql::sqlparser::tokenizer::Location;

use super::super::compile::Problem;
use super::scope::Scope;
use super::shape::Scan;
use super::{GRACE_US, TICK_US};
use crate::sql::interval_us;
use crate::sql::names::normal;

/// The place of `now()` among the points; scan `k` is point `k + 1`.
const NOW: usize = 0;

const HINT: &str = "write a.time > now() - INTERVAL '5 minutes' for each table, b.time BETWEEN a.time AND a.time + INTERVAL \
                    '5 minutes' between two, or window: 5m in the file";

/// `to - from <= length`, in µs.
#[derive(Debug, Clone, Copy)]
struct Edge {
    to: usize,
    from: usize,
    length_us: i64,
}

/// What was read from the conditions.
#[derive(Debug, Default)]
pub(super) struct Bounds {
    firm: Vec<Edge>,
    loose: Vec<Edge>,
}

/// From when to when a scan sees rows, as distances from now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Reach {
    /// Rows older than this are gone.
    pub(super) back_us: i64,
    /// Rows younger than this are not seen yet: what they wait for may still come.
    pub(super) wait_us: i64,
    /// A row that grows older than `back_us` may change the answer by that; of another scan a little more is kept than it asks about.
    pub(super) sharp: bool,
}

impl Bounds {
    /// Takes what a condition says about time; `firm`: it holds for every row that the rule finds.
    pub(super) fn read(&mut self, condition: &Expr, scope: &Scope<'_>, firm: bool) {
        let edges = if firm { &mut self.firm } else { &mut self.loose };
        match condition {
            Expr::Nested(inner) => self.read(inner, scope, firm),
            Expr::Between { expr, negated: false, low, high } => {
                compare(edges, low, &BinaryOperator::LtEq, expr, scope);
                compare(edges, expr, &BinaryOperator::LtEq, high, scope);
            }
            Expr::BinaryOp { left, op, right } => compare(edges, left, op, right, scope),
            _ => {}
        }
    }

    /// How much was read.
    pub(super) const fn len(&self) -> usize {
        self.firm.len() + self.loose.len()
    }

    /// Takes what holds only where something is found.
    pub(super) fn loosen(&mut self, inside: Self) {
        self.loose.extend(inside.firm.into_iter().chain(inside.loose));
    }

    /// The reach of each scan, or why time is not bounded. `gathers`: rows that do not meet in one row of a join are put together.
    pub(super) fn reach(&self, scans: &[Scan], gathers: bool, window_us: Option<i64>) -> Result<Vec<Reach>, Problem> {
        let firm = closure(self.firm.iter().copied(), scans.len());
        let all = closure(self.firm.iter().chain(&self.loose).copied(), scans.len());
        if scans.iter().all(|scan| !scan.absent) {
            return present(&firm, &all, scans, gathers, window_us);
        }
        absence(&firm, &all, scans, gathers, window_us)
    }
}

fn present(
    firm: &Distances,
    all: &Distances,
    scans: &[Scan],
    gathers: bool,
    window_us: Option<i64>,
) -> Result<Vec<Reach>, Problem> {
    let near = span(all, scans.len());
    let reach = scans.iter().enumerate().map(|(at, scan)| {
        let apart = near.filter(|_| !gathers).map(|near| near.saturating_add(GRACE_US));
        let distances = if scan.aside { all } else { firm };
        let bound = distances.of(NOW, at + 1).or(window_us);
        match bound.or(apart) {
            Some(back_us) => Ok(Reach { back_us, wait_us: 0, sharp: bound.is_some() }),
            None => Err(unbounded(scan)),
        }
    });
    reach.collect()
}

/// The greatest distance between two of several scans; `None`: two of them may be any time apart.
fn span(distances: &Distances, scans: usize) -> Option<i64> {
    let pairs = (1..=scans).flat_map(|to| (1..=scans).map(move |from| (to, from))).filter(|(to, from)| to != from);
    let lengths: Option<Vec<i64>> = pairs.map(|(to, from)| distances.of(to, from)).collect();
    lengths?.into_iter().max()
}

fn absence(
    firm: &Distances,
    all: &Distances,
    scans: &[Scan],
    gathers: bool,
    window_us: Option<i64>,
) -> Result<Vec<Reach>, Problem> {
    let of = |absent: bool| scans.iter().enumerate().filter(move |(_, scan)| scan.absent == absent);
    let waits = latest_ends(all, scans)?;
    let mut reach = vec![Reach { back_us: 0, wait_us: 0, sharp: false }; scans.len()];
    for (at, scan) in of(false) {
        let bound = firm.of(NOW, at + 1).or(window_us);
        if gathers && bound.is_none() {
            return Err(unbounded(scan));
        }
        let wait_us = waits.get(at).copied().unwrap_or(0).saturating_add(GRACE_US);
        // Its rows would be too old by the time that they are decided, and the rule find nothing, ever.
        if let Some((_, absent)) = of(true).next().filter(|_| firm.of(NOW, at + 1).is_some_and(|back| back <= wait_us))
        {
            return Err(endless(absent));
        }
        let back_us = wait_us.saturating_add(bound.unwrap_or(0)).saturating_add(2 * TICK_US);
        if let Some(reach) = reach.get_mut(at) {
            *reach = Reach { back_us, wait_us, sharp: false };
        }
    }
    let oldest = reach.iter().map(|reach| reach.back_us).max().unwrap_or(0);
    for (at, scan) in of(true) {
        let before = of(false).filter_map(|(anchor, _)| all.of(anchor + 1, at + 1)).min();
        let back_us = before.map(|before| oldest.saturating_add(before.max(0))).or(all.of(NOW, at + 1)).or(window_us);
        let back_us = back_us.ok_or_else(|| unbounded(scan))?;
        if let Some(reach) = reach.get_mut(at) {
            *reach = Reach { back_us, wait_us: 0, sharp: false };
        }
    }
    Ok(reach)
}

/// How long after a row of each scan that is there the last of those may come that may be absent.
fn latest_ends(all: &Distances, scans: &[Scan]) -> Result<Vec<i64>, Problem> {
    let of = |absent: bool| scans.iter().enumerate().filter(move |(_, scan)| scan.absent == absent);
    let end = |anchor: usize| of(true).filter_map(|(at, _)| all.of(at + 1, anchor + 1)).max();
    for (at, scan) in of(true) {
        if of(false).all(|(anchor, _)| all.of(at + 1, anchor + 1).is_none()) {
            return Err(endless(scan));
        }
    }
    let Some(latest) = of(false).filter_map(|(at, _)| end(at)).max() else {
        let at = scans.first().map_or(Location { line: 0, column: 0 }, |scan| scan.at);
        return Err(
            Problem::at(at, "every table of this rule is one that may be absent").hint("begin with what is there")
        );
    };
    Ok((0..scans.len()).map(|at| end(at).unwrap_or(latest).max(0)).collect())
}

fn unbounded(scan: &Scan) -> Problem {
    Problem::at(scan.at, format!("nothing says how far back {} is looked at", scan.alias)).hint(HINT)
}

fn endless(absent: &Scan) -> Problem {
    Problem::at(absent.at, format!("nothing says until when {} is waited for", absent.alias))
        .hint("write AND b.time <= a.time + INTERVAL '5 minutes'; the rule decides when that has passed")
}

/// The tightest `to - from <= length` between any two points.
struct Distances {
    points: usize,
    lengths: Vec<Option<i64>>,
}

impl Distances {
    fn of(&self, to: usize, from: usize) -> Option<i64> {
        self.lengths.get(to.checked_mul(self.points)?.checked_add(from)?).copied().flatten()
    }

    fn shorten(&mut self, to: usize, from: usize, length_us: i64) {
        let at = to.saturating_mul(self.points).saturating_add(from);
        if let Some(known) = self.lengths.get_mut(at) {
            *known = Some(known.map_or(length_us, |known| known.min(length_us)));
        }
    }
}

fn closure(edges: impl Iterator<Item = Edge>, scans: usize) -> Distances {
    let points = scans + 1;
    let mut distances = Distances { points, lengths: vec![None; points.saturating_mul(points)] };
    for point in 0..points {
        distances.shorten(point, point, 0);
        // No event is younger than the time that events have reached.
        distances.shorten(point, NOW, 0);
    }
    for Edge { to, from, length_us } in edges {
        distances.shorten(to, from, length_us);
    }
    for over in 0..points {
        for to in 0..points {
            for from in 0..points {
                if let (Some(far), Some(near)) = (distances.of(to, over), distances.of(over, from)) {
                    distances.shorten(to, from, far.saturating_add(near));
                }
            }
        }
    }
    distances
}

/// A point and what is added to it.
type Term = (usize, i64);

fn compare(edges: &mut Vec<Edge>, left: &Expr, op: &BinaryOperator, right: &Expr, scope: &Scope<'_>) {
    let (Some((low, high)), Some((high_back, low_back))) =
        (difference(left, right, scope), difference(right, left, scope))
    else {
        return;
    };
    let (less, more) = match op {
        BinaryOperator::Lt | BinaryOperator::LtEq => (true, false),
        BinaryOperator::Gt | BinaryOperator::GtEq => (false, true),
        BinaryOperator::Eq => (true, true),
        _ => return,
    };
    if less {
        edges.push(edge(low, high));
    }
    if more {
        edges.push(edge(high_back, low_back));
    }
}

/// `low <= high`
const fn edge(low: Term, high: Term) -> Edge {
    Edge { to: low.0, from: high.0, length_us: high.1.saturating_sub(low.1) }
}

/// Both sides of a comparison as times: `x ? y`, or `x - y ? INTERVAL '…'` as `x ? y + INTERVAL '…'`.
fn difference(left: &Expr, right: &Expr, scope: &Scope<'_>) -> Option<(Term, Term)> {
    if let (Some(left), Some(right)) = (term(left, scope), term(right, scope)) {
        return Some((left, right));
    }
    let apart = |expr: &Expr| match plain(expr) {
        Expr::BinaryOp { left, op: BinaryOperator::Minus, right } => Some((term(left, scope)?, term(right, scope)?)),
        _ => None,
    };
    match (apart(left), interval(right), interval(left), apart(right)) {
        (Some((x, y)), Some(length), ..) => Some((x, (y.0, y.1.checked_add(length)?))),
        (_, _, Some(length), Some((x, y))) => Some(((y.0, y.1.checked_add(length)?), x)),
        _ => None,
    }
}

/// Whether a condition says how old a row may be and nothing else.
pub(super) fn only_looks_back(condition: &Expr, scope: &Scope<'_>) -> bool {
    let mut edges = Vec::new();
    let sides = match plain(condition) {
        Expr::Between { expr, negated: false, low, high } => {
            compare(&mut edges, low, &BinaryOperator::LtEq, expr, scope);
            compare(&mut edges, expr, &BinaryOperator::LtEq, high, scope);
            2
        }
        Expr::BinaryOp { left, op, right } if *op != BinaryOperator::Eq => {
            compare(&mut edges, left, op, right, scope);
            1
        }
        _ => return false,
    };
    let is_age = |edge: &Edge| match (edge.to, edge.from) {
        (NOW, from) => from != NOW,
        // No row is younger than that time anyway.
        (_, from) => from == NOW && edge.length_us >= 0,
    };
    edges.len() == sides && edges.iter().all(is_age)
}

fn plain(expr: &Expr) -> &Expr {
    match expr {
        Expr::Nested(inner) => plain(inner),
        other => other,
    }
}

fn term(expr: &Expr, scope: &Scope<'_>) -> Option<Term> {
    match expr {
        Expr::Nested(inner) => term(inner, scope),
        // The type of our times; any other may round, and what is rounded says less about time than it seems to.
        Expr::Cast { expr: inner, data_type: DataType::Timestamp(Some(6), _), .. } => term(inner, scope),
        Expr::Identifier(_) | Expr::CompoundIdentifier(_) => {
            let (scan, column) = scope.column(expr)?;
            (PROCESS_EVENTS.get(column)?.name == "time").then_some((scan + 1, 0))
        }
        Expr::Function(function) if is_now(function) => Some((NOW, 0)),
        Expr::BinaryOp { left, op: BinaryOperator::Plus, right } => {
            let (time, length) = match (term(left, scope), interval(right)) {
                (Some(time), Some(length)) => (time, length),
                _ => (term(right, scope)?, interval(left)?),
            };
            Some((time.0, time.1.checked_add(length)?))
        }
        Expr::BinaryOp { left, op: BinaryOperator::Minus, right } => {
            let (time, length) = (term(left, scope)?, interval(right)?);
            Some((time.0, time.1.checked_sub(length)?))
        }
        _ => None,
    }
}

pub(super) fn is_now(function: &Function) -> bool {
    matches!(function.name.0.as_slice(), [part] if part.as_ident().is_some_and(|ident| normal(ident) == "now"))
}

fn interval(expr: &Expr) -> Option<i64> {
    let Expr::Interval(Interval { value, leading_field, .. }) = plain(expr) else { return None };
    let Expr::Value(ValueWithSpan { value: Value::Number(length, _) | Value::SingleQuotedString(length), .. }) =
        value.as_ref()
    else {
        return None;
    };
    interval_us(&leading_field.as_ref().map_or_else(|| length.clone(), |field| format!("{length} {field}")))
}
