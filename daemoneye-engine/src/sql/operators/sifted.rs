//! The second input of a join without the rows whose key none of the first has.
//!
//! A join of a few parents with all their children would filter, copy and hash every child. The keys that were gathered leave
//! their marks in two small maps; a row whose key has no mark in them goes no further than the scan that it came from. A mark may
//! be another key's: the join itself decides.

use super::dictionaries;
use super::passing::{Passage, through};
use datafusion::arrow::array::{Array as _, ArrayRef, AsArray as _, BooleanArray, StringArray, StringViewArray};
use datafusion::arrow::buffer::BooleanBuffer;
use datafusion::arrow::compute::filter_record_batch;
use datafusion::arrow::datatypes::{DataType, Int64Type, UInt32Type};
use datafusion::arrow::record_batch::RecordBatch;
use datafusion::common::{JoinType, NullEquality, Result};
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_plan::coop::CooperativeExec;
use datafusion::physical_plan::filter::FilterExec;
use datafusion::physical_plan::joins::{HashJoinExec, PartitionMode};
use datafusion::physical_plan::union::UnionExec;
use datafusion::physical_plan::{ExecutionPlan, PlanProperties, replace_children_if_necessary};
use futures::stream::BoxStream;
use futures::{Stream, StreamExt as _};
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

/// Marks of the beginnings of texts, looked at before a text itself: 16 KiB, which the first level of a cache holds.
const BEGINNINGS: u32 = 17;
/// Marks of whole keys: 256 KiB, one in twenty of them for a hundred thousand keys.
const KEYS: u32 = 21;
/// A map with more than one mark in so many bits says too little.
const FULL: u32 = 2;
/// Bytes at the end of a text that stand for it: what is random in it is not at its beginning alone.
const END: usize = 8;
/// Of the rows of a batch, the share from which on it is handed on whole: one in so many is left out.
const WORTH: usize = 8;
/// Batches in a row that were not worth it, after which no more are looked at.
const PATIENCE: usize = 4;

/// Bits, of which a key sets one.
#[derive(Debug)]
struct Marks {
    words: Box<[u64]>,
    bits: u32,
}

impl Marks {
    fn new(bits: u32) -> Self {
        Self { words: vec![0; 1 << bits.saturating_sub(6)].into_boxed_slice(), bits }
    }

    /// The high bits of the product depend on all of the key (Fibonacci hashing, Knuth 1973).
    #[inline]
    fn place(&self, key: u64) -> (usize, u64) {
        let hash = key.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> (64 - self.bits);
        (usize::try_from(hash >> 6).unwrap_or_default(), 1 << (hash & 63))
    }

    fn set(&mut self, key: u64) {
        let (at, bit) = self.place(key);
        if let Some(word) = self.words.get_mut(at) {
            *word |= bit;
        }
    }

    #[inline]
    fn has(&self, key: u64) -> bool {
        let (at, bit) = self.place(key);
        self.words.get(at).is_some_and(|word| word & bit != 0)
    }

    fn says_much(&self) -> bool {
        let set: u32 = self.words.iter().map(|word| word.count_ones()).sum();
        set < (1_u32 << self.bits) / FULL
    }
}

/// What the gathered keys left.
#[derive(Debug)]
struct Keys {
    beginnings: Marks,
    whole: Marks,
    _held: MemoryReservation,
}

impl Keys {
    /// `None` when memory is short: the join does without.
    fn new(context: &TaskContext) -> Option<Self> {
        let held = MemoryConsumer::new("marks of a join").register(context.memory_pool());
        held.try_grow((1 << (BEGINNINGS - 3)) + (1 << (KEYS - 3))).ok()?;
        Some(Self { beginnings: Marks::new(BEGINNINGS), whole: Marks::new(KEYS), _held: held })
    }

    fn add(&mut self, keys: &ArrayRef) {
        if let Some(texts) = keys.as_string_view_opt() {
            let present = (0..texts.len()).filter(|row| texts.is_valid(*row));
            for (row, view) in present.filter_map(|row| Some((row, texts.views().get(row)?))) {
                self.beginnings.set(beginning(*view));
                self.whole.set(ending(texts.value(row)));
            }
        } else if let Some(numbers) = keys.as_primitive_opt::<Int64Type>() {
            numbers.iter().flatten().for_each(|number| self.whole.set(number.cast_unsigned()));
        }
    }

    /// For each row, whether its key may be among them. NULL never is.
    fn may_have(&self, keys: &ArrayRef) -> Option<BooleanBuffer> {
        if let Some(texts) = keys.as_string_view_opt() {
            return Some(self.may_have_text(texts));
        }
        let numbers = keys.as_primitive_opt::<Int64Type>()?;
        let values = numbers.values();
        let found = BooleanBuffer::collect_bool(values.len(), |row| {
            values.get(row).is_some_and(|number| self.whole.has(number.cast_unsigned()))
        });
        Some(valid(found, numbers.nulls()))
    }

    fn may_have_text(&self, texts: &StringViewArray) -> BooleanBuffer {
        let few = self.beginnings.says_much();
        let found = BooleanBuffer::collect_bool(texts.len(), |row| {
            let begins = !few || texts.views().get(row).is_some_and(|view| self.beginnings.has(beginning(*view)));
            begins && texts.is_valid(row) && self.whole.has(ending(texts.value(row)))
        });
        valid(found, texts.nulls())
    }
}

fn valid(found: BooleanBuffer, nulls: Option<&datafusion::arrow::buffer::NullBuffer>) -> BooleanBuffer {
    nulls.map_or_else(|| found.clone(), |nulls| &found & nulls.inner())
}

/// Length and first four bytes.
#[inline]
fn beginning(view: u128) -> u64 {
    u64::try_from(view & u128::from(u64::MAX)).unwrap_or_default()
}

/// Length and last bytes.
#[inline]
fn ending(text: &str) -> u64 {
    let bytes = text.as_bytes();
    let end = bytes.last_chunk::<END>().map_or_else(
        || bytes.iter().fold(0, |all, byte| (all << 8) | u64::from(*byte)),
        |end| u64::from_le_bytes(*end),
    );
    end ^ (bytes.len() as u64).rotate_left(48)
}

/// What both sides of a join share.
#[derive(Debug, Clone)]
struct Shared(Arc<OnceLock<Keys>>);

/// The inputs of a join with the marks made on the first and looked at on the second; `None` where rows without a partner are
/// answers too, or the keys are of another kind.
pub(super) fn sifted(join: &HashJoinExec, build: &Arc<dyn ExecutionPlan>) -> Option<[Arc<dyn ExecutionPlan>; 2]> {
    let partners_only =
        matches!(join.join_type(), JoinType::Inner | JoinType::Left | JoinType::LeftSemi | JoinType::RightSemi);
    let together = *join.partition_mode() == PartitionMode::CollectLeft;
    if !partners_only || !together || join.null_equality() != NullEquality::NullEqualsNothing {
        return None;
    }
    let column = |key: &Arc<dyn datafusion::physical_plan::PhysicalExpr>| Some(key.downcast_ref::<Column>()?.index());
    let (left, right) = join.on().iter().find_map(|(left, right)| Some((column(left)?, column(right)?)))?;
    let kind = |plan: &Arc<dyn ExecutionPlan>, column: usize| {
        plan.schema().fields().get(column).map(|f| f.data_type().clone())
    };
    let known = matches!(kind(join.left(), left)?, DataType::Utf8View | DataType::Int64);
    if !known || kind(join.left(), left) != kind(join.right(), right) {
        return None;
    }
    let shared = Shared(Arc::default());
    let build = through(build, Marking { column: left, shared: shared.clone() });
    Some([build, below(join.right(), right, &shared).ok()?])
}

/// The plan with the look as far down as the key's column can be followed; a limit counts rows before they are looked at. A scan
/// of files at the bottom hands on its dictionaries, and only rows that pass become text.
fn below(plan: &Arc<dyn ExecutionPlan>, column: usize, shared: &Shared) -> Result<Arc<dyn ExecutionPlan>> {
    if plan.downcast_ref::<UnionExec>().is_some() || plan.downcast_ref::<CooperativeExec>().is_some() {
        let inputs = plan.children().into_iter().map(|input| below(input, column, shared)).collect::<Result<_>>()?;
        return replace_children_if_necessary(Arc::clone(plan), inputs);
    }
    if let Some(filter) = plan.downcast_ref::<FilterExec>().filter(|filter| filter.fetch().is_none()) {
        let inside = match filter.projection() {
            Some(columns) => columns.get(column).copied(),
            None => Some(column),
        };
        if let Some(inside) = inside {
            return replace_children_if_necessary(Arc::clone(plan), vec![below(filter.input(), inside, shared)?]);
        }
    }
    let all: Vec<usize> = (0..plan.schema().fields().len()).collect();
    let sifting = |text| Sifting { column, shared: shared.clone(), text };
    Ok(match dictionaries::scan(plan, &all) {
        Some(scan) => through(&scan, sifting(Some(Arc::clone(plan.properties())))),
        None => through(plan, sifting(None)),
    })
}

/// Marks the keys of what passes.
#[derive(Debug, Clone)]
struct Marking {
    column: usize,
    shared: Shared,
}

impl Passage for Marking {
    const NAME: &'static str = "Marking";

    fn pass(
        &self,
        input: SendableRecordBatchStream,
        context: &TaskContext,
    ) -> BoxStream<'static, Result<RecordBatch>> {
        Marked { input, keys: Keys::new(context), to: self.clone() }.boxed()
    }
}

struct Marked {
    input: SendableRecordBatchStream,
    keys: Option<Keys>,
    to: Marking,
}

impl Stream for Marked {
    type Item = Result<RecordBatch>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let next = futures::ready!(self.input.poll_next_unpin(context));
        let column = self.to.column;
        match &next {
            Some(Ok(batch)) => {
                if let (Some(keys), Some(column)) = (&mut self.keys, batch.columns().get(column)) {
                    keys.add(column);
                }
            }
            // What is not whole excludes nothing.
            Some(Err(_)) => self.keys = None,
            None => {
                let keys = self.keys.take().filter(|keys| keys.whole.says_much());
                if let Some(keys) = keys {
                    self.to.shared.0.get_or_init(|| keys);
                }
            }
        }
        Poll::Ready(next)
    }
}

/// Leaves out rows whose key has no mark.
#[derive(Debug, Clone)]
struct Sifting {
    column: usize,
    shared: Shared,
    /// What leaves, where the input has dictionaries instead of text.
    text: Option<Arc<PlanProperties>>,
}

impl Passage for Sifting {
    const NAME: &'static str = "Sifting";

    fn properties(&self, input: &Arc<dyn ExecutionPlan>) -> Arc<PlanProperties> {
        Arc::clone(self.text.as_ref().unwrap_or(input.properties()))
    }

    fn pass(&self, input: SendableRecordBatchStream, _: &TaskContext) -> BoxStream<'static, Result<RecordBatch>> {
        let Self { column, shared, text } = self.clone();
        let columns = text.map(|text| Arc::clone(text.eq_properties.schema()));
        let (mut dull, mut sieve) = (0, Sieve::default());
        let sift = move |batch: Result<RecordBatch>| {
            let mut batch = batch?;
            let keys = shared.0.get().filter(|_| dull < PATIENCE);
            let found = batch.columns().get(column).and_then(|column| sieve.passing(keys?, column));
            if let Some(found) = found {
                let out = batch.num_rows().saturating_sub(found.count_set_bits());
                let is_worth_it = out.saturating_mul(WORTH) >= batch.num_rows();
                dull = if is_worth_it { 0 } else { dull + 1 };
                if is_worth_it {
                    batch = filter_record_batch(&batch, &BooleanArray::new(found, None))?;
                }
            }
            columns.as_ref().map_or_else(|| Ok(batch.clone()), |columns| dictionaries::text(&batch, columns))
        };
        input.map(sift).boxed()
    }
}

/// The dictionary that was met last, and whether each of its values may be a key.
#[derive(Debug, Default)]
struct Sieve {
    met: Option<(StringArray, Vec<bool>)>,
}

impl Sieve {
    fn passing(&mut self, keys: &Keys, column: &ArrayRef) -> Option<BooleanBuffer> {
        let Some(rows) = column.as_dictionary_opt::<UInt32Type>() else { return keys.may_have(column) };
        let values = rows.values().as_string_opt::<i32>()?;
        if !self.met.as_ref().is_some_and(|(met, _)| dictionaries::same(met, values)) {
            let may = values.iter().map(|value| value.is_some_and(|value| keys.whole.has(ending(value))));
            self.met = Some((values.clone(), may.collect()));
        }
        let (_, may) = self.met.as_ref()?;
        let numbers = rows.keys().values();
        let found = BooleanBuffer::collect_bool(numbers.len(), |row| {
            let number = numbers.get(row).and_then(|number| usize::try_from(*number).ok());
            number.and_then(|number| may.get(number)).is_some_and(|may| *may)
        });
        Some(valid(found, rows.nulls()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use datafusion::arrow::array::Int64Array;

    fn keys(columns: &[ArrayRef]) -> Keys {
        let mut keys = Keys::new(&TaskContext::default()).unwrap();
        columns.iter().for_each(|column| keys.add(column));
        keys
    }

    fn passing(keys: &Keys, column: &ArrayRef) -> Vec<bool> {
        keys.may_have(column).unwrap().iter().collect()
    }

    #[test]
    fn a_key_that_was_gathered_is_never_left_out_and_others_mostly_are() {
        let text = |number: u64| format!("{:016x}{:016x}", number.wrapping_mul(0x9E37_79B9_7F4A_7C15), number);
        let mut gathered: Vec<String> = (0..9_000).map(text).collect();
        gathered.extend(["", "a", "sshd", "exactly 12 b", "more than 12 b"].map(str::to_owned));
        let build: ArrayRef = Arc::new(StringViewArray::from_iter(gathered.iter().map(Some).chain([None])));
        let keys = keys(&[build.slice(0, 4_000), build.slice(4_000, build.len() - 4_000)]);
        let found = passing(&keys, &build);
        assert!(found.iter().zip(0..).all(|(found, row)| *found == build.is_valid(row)), "all but NULL");
        let others: ArrayRef = Arc::new(StringViewArray::from_iter_values((100_000..120_000).map(text)));
        let passed = passing(&keys, &others).into_iter().filter(|passed| *passed).count();
        assert!(passed < 400, "{passed} of 20000 pass by chance");
    }

    #[test]
    fn numbers_are_keys_too() {
        let build: ArrayRef = Arc::new(Int64Array::from_iter([Some(1), None, Some(-7), Some(i64::MAX)]));
        let keys = keys(&[build]);
        let probe: ArrayRef =
            Arc::new(Int64Array::from_iter([Some(1), Some(2), None, Some(-7), Some(0), Some(i64::MAX)]));
        assert_eq!(passing(&keys, &probe), [true, false, false, true, false, true]);
    }

    #[test]
    fn marks_that_fill_their_map_say_nothing() {
        let mut marks = Marks::new(8);
        assert!(marks.says_much());
        (0..2_000).for_each(|key| marks.set(key));
        assert!(!marks.says_much());
    }
}
