//! The conversion itself: one file's tensors, cut into pieces that every core converts while the file is written.
//!
//! A piece is about a megabyte of the source, so that memory stays the same for a model of any size. Each of the
//! workers takes every n-th piece and hands its results over in order; the writer collects them in turn. What is made
//! beside a weight (scales, biases) waits until the weight is written where it is short, and is made anew where it is
//! not: that costs time in the one matrix in a model that is so large, and bounds memory in all.

use std::ops::Range;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread;

use bytes::Bytes;
use mlxctl_weights::{
    Dtype, MatrixView, Quantization, QuantizedTensors, SafetensorsWriter, Tensor, TensorSpec, cast, quantize,
};

use crate::adapter::Change;
use crate::{BuildOptions, Error};

/// Bytes of the source in one piece, about.
const PIECE_BYTES: usize = 1 << 20;
/// Results of one worker that wait for the writer.
const QUEUE: usize = 2;
/// The most that waits for the end of a weight.
const MAX_WAITING_BYTES: u64 = 64 << 20;

/// What becomes of one source tensor.
pub(crate) struct Work<'a> {
    /// The source.
    pub tensor: &'a Tensor,
    /// What adapters add to it.
    pub changes: &'a [Change],
    /// The type it is cast to.
    pub dtype: Dtype,
    /// How it is quantised then.
    pub format: Option<Quantization>,
}

/// One of the tensors that a source tensor turns into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    Weight,
    Scales,
    Biases,
}

/// An output of the file, in the order of the file.
pub(crate) struct Output<'a> {
    pub spec: &'a TensorSpec,
    pub work: Work<'a>,
    pub part: Part,
}

/// One run over a source tensor: it writes an output, and keeps those right after it that are made along.
struct Pass<'a> {
    output: &'a Output<'a>,
    along: &'a [Output<'a>],
}

enum Made {
    /// As it is in the source.
    Kept(Bytes),
    Cast(Vec<u8>),
    Quantized(QuantizedTensors),
}

impl Made {
    fn part(&self, part: Part) -> &[u8] {
        match self {
            Self::Kept(data) => data,
            Self::Cast(data) => data,
            Self::Quantized(made) => match part {
                Part::Weight => &made.weight,
                Part::Scales => &made.scales,
                Part::Biases => &made.biases,
            },
        }
    }
}

/// Writes the outputs, which are all tensors of the file in its order.
pub(crate) fn write<W: std::io::Write>(
    outputs: &[Output<'_>],
    writer: &mut SafetensorsWriter<W>,
    options: &BuildOptions<'_>,
) -> Result<(), Error> {
    let passes = passes(outputs)?;
    let workers = options.threads.get();
    thread::scope(|scope| {
        let mut queues = Vec::with_capacity(workers);
        for worker in 0..workers {
            let (sender, queue) = sync_channel(QUEUE);
            queues.push(queue);
            let passes = &passes;
            scope.spawn(move || convert(passes, worker, workers, &sender));
        }
        // Where this ends early, the queues close and the workers end.
        let mut turn = queues.iter().cycle();
        for pass in &passes {
            let lengths = pass.along.iter().map(|along| along.spec.bytes());
            let lengths = lengths.collect::<Result<Vec<_>, _>>()?;
            let mut waiting: Vec<_> = lengths.into_iter().map(|bytes| Vec::with_capacity(bytes as usize)).collect();
            for _ in pass.pieces() {
                let queue = turn.next().expect("there is at least one thread");
                let made = queue.recv().expect("a worker sends a result for each of its pieces")?;
                let data = made.part(pass.output.part);
                writer.write(&pass.output.spec.name, data)?;
                options.progress.advanced(data.len() as u64);
                for (waiting, along) in waiting.iter_mut().zip(pass.along) {
                    waiting.extend_from_slice(made.part(along.part));
                }
            }
            for (waiting, along) in waiting.iter().zip(pass.along) {
                writer.write(&along.spec.name, waiting)?;
                options.progress.advanced(waiting.len() as u64);
            }
        }
        Ok(())
    })
}

/// Puts the outputs that are made along with the one before them into its pass.
fn passes<'a>(outputs: &'a [Output<'a>]) -> Result<Vec<Pass<'a>>, Error> {
    let mut passes = Vec::new();
    let mut rest = outputs;
    while let [output, following @ ..] = rest {
        let mut waiting = 0;
        let mut count = 0;
        for next in following {
            waiting += next.spec.bytes()?;
            if !std::ptr::eq(next.work.tensor, output.work.tensor) || waiting > MAX_WAITING_BYTES {
                break;
            }
            count += 1;
        }
        let (along, after) = following.split_at(count);
        passes.push(Pass { output, along });
        rest = after;
    }
    Ok(passes)
}

/// Converts every `workers`-th piece, beginning with the one of number `worker`.
fn convert(passes: &[Pass<'_>], worker: usize, workers: usize, results: &SyncSender<Result<Made, Error>>) {
    let pieces = passes.iter().flat_map(|pass| pass.pieces().map(move |piece| (&pass.output.work, piece)));
    for (work, piece) in pieces.skip(worker).step_by(workers) {
        let made = work.make(piece);
        let failed = made.is_err();
        // A closed queue is a writer that has failed.
        if results.send(made).is_err() || failed {
            return;
        }
    }
}

impl Pass<'_> {
    /// The pieces of the source, as ranges of its elements.
    fn pieces(&self) -> impl Iterator<Item = Range<usize>> + use<> {
        let work = &self.output.work;
        let elements = work.tensor.elements();
        let unit = work.unit();
        let length = (PIECE_BYTES / work.tensor.dtype.size() / unit).max(1) * unit;
        (0..elements).step_by(length).map(move |start| start..elements.min(start.saturating_add(length)))
    }
}

impl Work<'_> {
    /// Elements that cannot be torn apart.
    fn unit(&self) -> usize {
        let (_, columns) = self.tensor.rows_and_columns();
        match self.format {
            _ if !self.changes.is_empty() => columns.max(1),
            Some(format) => format.group_size() as usize,
            None => 1,
        }
    }

    fn make(&self, elements: Range<usize>) -> Result<Made, Error> {
        let from = self.tensor.dtype;
        let source = self.tensor.data.slice(elements.start * from.size()..elements.end * from.size());
        if self.changes.is_empty() && self.format.is_none() && self.dtype == from {
            return Ok(Made::Kept(source));
        }
        let mut owned = None;
        if !self.changes.is_empty() {
            let (_, columns) = self.tensor.rows_and_columns();
            let rows = elements.start / columns..elements.end / columns;
            let data = owned.insert(source.to_vec());
            for change in self.changes {
                change.add_to(data, from, rows.clone())?;
            }
        }
        if self.dtype != from {
            owned = Some(cast(from, self.dtype, owned.as_deref().unwrap_or(&source))?);
        }
        let Some(format) = self.format else { return Ok(Made::Cast(owned.unwrap_or_else(|| source.to_vec()))) };
        // Groups follow each other through the whole matrix, so that a piece is a matrix of one group a row.
        let columns = format.group_size() as usize;
        let data = owned.as_deref().unwrap_or(&source);
        let matrix = MatrixView { rows: elements.len() / columns, columns, dtype: self.dtype, data };
        Ok(Made::Quantized(quantize(matrix, format, 1)?))
    }
}
