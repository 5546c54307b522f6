//! Groups of one column of text, counted by its dictionary.
//!
//! The first half of an aggregate hashes and compares the text of every row. Here each value of a dictionary is looked up once a
//! row group, and a row adds to the group of its value. What leaves is what the first half would have sent, so the second half
//! stays as it is; groups leave early rather than take much memory, because it puts together what belongs together.

use super::dictionaries;
use super::inside;
use super::passing::{Passage, through};
use datafusion::arrow::array::{Array as _, ArrayRef, AsArray as _, DictionaryArray, StringArray, StringViewArray};
use datafusion::arrow::datatypes::{DataType, UInt32Type};
use datafusion::arrow::record_batch::RecordBatch;
use datafusion::common::{DataFusionError, Result};
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::{EmitTo, GroupsAccumulator};
use datafusion::physical_expr::aggregate::AggregateFunctionExpr;
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_expr::utils::collect_columns;
use datafusion::physical_plan::aggregates::{AggregateExec, AggregateMode};
use datafusion::physical_plan::union::UnionExec;
use datafusion::physical_plan::{
    ExecutionPlan, Partitioning, PhysicalExpr, PlanProperties, replace_children_if_necessary,
};
use futures::StreamExt as _;
use futures::stream::{self, BoxStream};
use std::collections::HashMap;
use std::sync::Arc;

/// Groups that are kept at most; more leave and begin again. As many as a batch has rows.
const MAX_GROUPS: usize = 8_192;
/// Bytes of a group beside its text and what its accumulators say: its place in the table and in the dictionary.
const GROUP_BYTES: usize = 64;
/// A value of a dictionary that no row has had yet.
const UNSEEN: usize = usize::MAX;

/// The first half of an aggregate with each scan of files below it grouped by its dictionary; `None` where none can be.
pub(super) fn grouped(node: &Arc<dyn ExecutionPlan>) -> Option<Result<Arc<dyn ExecutionPlan>>> {
    let aggregate = node.downcast_ref::<AggregateExec>()?;
    let column = column_of(aggregate)?;
    let over = |input: &Arc<dyn ExecutionPlan>| -> Option<Arc<dyn ExecutionPlan>> {
        let input = dictionaries::scan(input, &[column])?;
        // The rest of what it reads stays text.
        (*input.schema().fields().get(column)?.data_type() == dictionaries::dictionary()).then_some(())?;
        let properties = node.properties().as_ref().clone();
        let partitions = input.properties().partitioning.partition_count();
        let partitioning = Partitioning::UnknownPartitioning(partitions);
        let properties = Arc::new(properties.with_partitioning(partitioning));
        Some(through(&input, Grouped { aggregate: Arc::new(aggregate.clone()), column, properties }))
    };
    let input = inside(aggregate.input());
    if input.downcast_ref::<UnionExec>().is_none() {
        return over(input).map(Ok);
    }
    let inputs = input.children();
    let halves: Vec<_> = inputs.iter().map(|input| over(input)).collect();
    halves.iter().any(Option::is_some).then(|| {
        let half = |(half, input): (Option<_>, &&Arc<dyn ExecutionPlan>)| match half {
            Some(half) => Ok(half),
            None => replace_children_if_necessary(Arc::clone(node), vec![Arc::clone(input)]),
        };
        UnionExec::try_new(halves.into_iter().zip(&inputs).map(half).collect::<Result<_>>()?)
    })
}

/// The one column that is grouped by, if nothing else asks about it and nothing is asked in an order.
fn column_of(aggregate: &AggregateExec) -> Option<usize> {
    let groups = aggregate.group_expr();
    let [(key, _)] = groups.expr() else { return None };
    let column = key.downcast_ref::<Column>()?.index();
    let plain = |call: &Arc<AggregateFunctionExpr>| {
        call.groups_accumulator_supported() && !call.is_distinct() && call.order_bys().is_empty()
    };
    let other = |expr: &Arc<dyn PhysicalExpr>| collect_columns(expr).iter().all(|read| read.index() != column);
    let is_plain = *aggregate.mode() == AggregateMode::Partial
        && groups.is_single()
        && aggregate.limit_options().is_none()
        && aggregate.aggr_expr().iter().all(|call| plain(call) && call.expressions().iter().all(other))
        && aggregate.filter_expr().iter().flatten().all(other);
    let text = aggregate.input().schema().fields().get(column)?.data_type().clone();
    (is_plain && text == DataType::Utf8View).then_some(column)
}

/// Above an input that has the column as a dictionary.
#[derive(Debug, Clone)]
struct Grouped {
    /// What it stands for.
    aggregate: Arc<AggregateExec>,
    column: usize,
    properties: Arc<PlanProperties>,
}

impl Passage for Grouped {
    const NAME: &'static str = "Grouped";
    const KEEPS_ORDER: bool = false;

    fn properties(&self, _: &Arc<dyn ExecutionPlan>) -> Arc<PlanProperties> {
        Arc::clone(&self.properties)
    }

    fn pass(
        &self,
        input: SendableRecordBatchStream,
        context: &TaskContext,
    ) -> BoxStream<'static, Result<RecordBatch>> {
        let groups = match Groups::new(&self.aggregate, self.column, context) {
            Ok(groups) => groups,
            Err(error) => return stream::iter([Err(error)]).boxed(),
        };
        let halves = stream::try_unfold((input, groups), async |(mut input, mut groups)| {
            while let Some(batch) = input.next().await {
                groups.add(&batch?)?;
                if groups.are_many() {
                    return groups.leave().map(|half| Some((half, (input, groups))));
                }
            }
            if groups.texts.is_empty() { Ok(None) } else { groups.leave().map(|half| Some((half, (input, groups)))) }
        });
        halves.boxed()
    }
}

/// What the rows so far have come to.
struct Groups {
    aggregate: Arc<AggregateExec>,
    column: usize,
    accumulators: Vec<Box<dyn GroupsAccumulator>>,
    numbers: HashMap<Option<Arc<str>>, usize>,
    /// By number.
    texts: Vec<Option<Arc<str>>>,
    text_bytes: usize,
    dictionary: Option<Known>,
    /// Of each row of the batch under way, the number of its group.
    rows: Vec<usize>,
    held: MemoryReservation,
    /// Memory is short: what there is leaves with each batch.
    short: bool,
}

/// A dictionary, and of its values the groups, as far as rows had them.
struct Known {
    values: StringArray,
    groups: Vec<usize>,
}

impl Groups {
    fn new(aggregate: &Arc<AggregateExec>, column: usize, context: &TaskContext) -> Result<Self> {
        let accumulators = aggregate.aggr_expr().iter().map(|call| call.create_groups_accumulator());
        Ok(Self {
            aggregate: Arc::clone(aggregate),
            column,
            accumulators: accumulators.collect::<Result<_>>()?,
            numbers: HashMap::new(),
            texts: Vec::new(),
            text_bytes: 0,
            dictionary: None,
            rows: Vec::new(),
            held: MemoryConsumer::new("groups of a dictionary").register(context.memory_pool()),
            short: false,
        })
    }

    fn add(&mut self, batch: &RecordBatch) -> Result<()> {
        let keys = batch.columns().get(self.column).and_then(|column| column.as_dictionary_opt::<UInt32Type>());
        let keys = keys.ok_or_else(|| DataFusionError::Internal("a group is no dictionary".to_owned()))?;
        self.number(keys)?;
        let aggregate = Arc::clone(&self.aggregate);
        let evaluated = |expr: &Arc<dyn PhysicalExpr>| expr.evaluate(batch)?.into_array(batch.num_rows());
        let calls = aggregate.aggr_expr().iter().zip(aggregate.filter_expr());
        for ((call, filter), accumulator) in calls.zip(&mut self.accumulators) {
            let values = call.expressions().iter().map(evaluated).collect::<Result<Vec<_>>>()?;
            let filter = filter.as_ref().map(evaluated).transpose()?;
            let filter = filter.as_ref().and_then(|passing| passing.as_boolean_opt());
            accumulator.update_batch(&values, &self.rows, filter, self.texts.len())?;
        }
        self.short = self.held.try_resize(self.bytes()).is_err();
        Ok(())
    }

    /// The group of each row.
    fn number(&mut self, keys: &DictionaryArray<UInt32Type>) -> Result<()> {
        let values = keys.values().as_string_opt::<i32>();
        let values = values.ok_or_else(|| DataFusionError::Internal("a group is no text".to_owned()))?;
        let mut known = match self.dictionary.take() {
            Some(known) if dictionaries::same(&known.values, values) => known,
            _ => Known { values: values.clone(), groups: vec![UNSEEN; values.len()] },
        };
        self.rows.clear();
        self.rows.reserve(keys.len());
        for (row, key) in keys.keys().values().iter().enumerate() {
            let place = usize::try_from(*key).ok().and_then(|key| known.groups.get(key).map(|group| (key, *group)));
            let number = match place {
                _ if keys.is_null(row) => self.numbered(None),
                Some((_, group)) if group != UNSEEN => group,
                Some((key, _)) => {
                    let text = values.is_valid(key).then(|| values.value(key));
                    let number = self.numbered(text);
                    known.groups.get_mut(key).into_iter().for_each(|group| *group = number);
                    number
                }
                None => return Err(DataFusionError::Execution(format!("a dictionary has no value {key}"))),
            };
            self.rows.push(number);
        }
        self.dictionary = Some(known);
        Ok(())
    }

    fn numbered(&mut self, text: Option<&str>) -> usize {
        let text = text.map(Arc::<str>::from);
        if let Some(number) = self.numbers.get(&text) {
            return *number;
        }
        let number = self.texts.len();
        self.text_bytes = self.text_bytes.saturating_add(text.as_ref().map_or(0, |text| text.len()));
        self.texts.push(text.clone());
        self.numbers.insert(text, number);
        number
    }

    fn bytes(&self) -> usize {
        let values = self.dictionary.as_ref().map_or(0, |known| known.values.len());
        let kept = self.texts.len().saturating_add(values).saturating_mul(GROUP_BYTES);
        let said = self.accumulators.iter().fold(0_usize, |all, accumulator| all.saturating_add(accumulator.size()));
        kept.saturating_add(self.text_bytes).saturating_add(said)
    }

    const fn are_many(&self) -> bool {
        (self.short && !self.texts.is_empty()) || self.texts.len() >= MAX_GROUPS
    }

    /// All groups, as the first half of the aggregate tells them to the second.
    fn leave(&mut self) -> Result<RecordBatch> {
        let texts = StringViewArray::from_iter(self.texts.iter().map(Option::as_deref));
        let mut columns: Vec<ArrayRef> = vec![Arc::new(texts)];
        for accumulator in &mut self.accumulators {
            columns.extend(accumulator.state(EmitTo::All)?);
        }
        self.numbers.clear();
        self.texts.clear();
        (self.dictionary, self.text_bytes, self.short) = (None, 0, false);
        self.held.free();
        Ok(RecordBatch::try_new(self.aggregate.schema(), columns)?)
    }
}
