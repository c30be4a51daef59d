//! Which sequences compute what in the next step, and which KV blocks they hold. A pure state machine: it knows counts
//! and identifiers, never a token, a device or a clock. The engine thread feeds it events and carries out its effects.
//!
//! A sequence is *waiting* (it holds nothing), or *running* (it holds blocks for the tokens it has stored). A running
//! sequence with one token to compute decodes; one with more prefills. Rules:
//!
//! - Every step takes all decodes, one token each, and shares what is left of the token budget evenly among the
//!   prefills, so that a short prompt does not wait for a long one.
//! - Sequences are admitted in the order they came, when there are free blocks for all their tokens and, beside
//!   others, one to spare.
//! - Nothing is reserved for tokens not yet generated. Where a decode finds no free block, the sequence admitted last
//!   gives all of its blocks back, waits in front of the queue, and computes its tokens again later. The sequence
//!   admitted first can therefore always go on, and as no sequence is longer than the pool, every one ends.

use std::collections::VecDeque;
use std::time::Duration;

use mlxctl_backend::BlockId;

/// A sequence, for as long as its engine lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct SequenceId(pub(crate) u64);

/// What a step and the pool have room for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Sequences that run at once.
    pub(crate) max_sequences: usize,
    /// Tokens of one step; at least `max_sequences`.
    pub(crate) step_tokens: usize,
    /// Blocks of the pool.
    pub(crate) blocks: usize,
    /// Tokens of a block.
    pub(crate) block_size: usize,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Event {
    /// A sequence of so many tokens came; it fits the pool, its answer included.
    Arrived { id: SequenceId, tokens: usize },
    /// A step is to be made.
    Tick,
    /// The part of a step was computed; with `sampled` its sequence is one token longer.
    Computed { id: SequenceId, length: usize, sampled: bool },
    /// A sequence ended, for whatever reason.
    Left { id: SequenceId },
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Effect {
    /// A sequence runs now; it waited so long.
    Admitted { id: SequenceId, waited: Duration },
    /// A sequence lost its blocks and waits again.
    Preempted { id: SequenceId },
    /// Compute `length` tokens of a sequence from `position` on; with `sample` its next token is wanted.
    Compute { id: SequenceId, position: usize, length: usize, blocks: Vec<BlockId>, sample: bool },
}

#[derive(Debug, Clone)]
struct Sequence {
    id: SequenceId,
    /// Tokens known: the prompt, and what was generated.
    tokens: usize,
    /// Of them, those whose keys and values the pool holds.
    stored: usize,
    blocks: Vec<BlockId>,
    since: Duration,
}

impl Sequence {
    fn pending(&self) -> usize {
        self.tokens - self.stored
    }
}

/// The state.
#[derive(Debug)]
pub(crate) struct Scheduler {
    limits: Limits,
    free: Vec<BlockId>,
    waiting: VecDeque<Sequence>,
    /// In the order of their admission.
    running: Vec<Sequence>,
}

impl Scheduler {
    pub(crate) fn new(limits: Limits) -> Self {
        let limits = Limits {
            max_sequences: limits.max_sequences.max(1),
            step_tokens: limits.step_tokens.max(limits.max_sequences).max(1),
            ..limits
        };
        // Popped from the end: the lowest numbers go first.
        let free = (0..limits.blocks as u32).rev().map(BlockId).collect();
        Self { limits, free, waiting: VecDeque::new(), running: Vec::new() }
    }

    /// The sequences that hold blocks, in the order of their admission.
    pub(crate) fn running(&self) -> impl Iterator<Item = SequenceId> {
        self.running.iter().map(|sequence| sequence.id)
    }

    /// Takes an event in. `now` only ever grows.
    pub(crate) fn step(&mut self, event: Event, now: Duration) -> Vec<Effect> {
        match event {
            Event::Arrived { id, tokens } => {
                self.waiting.push_back(Sequence { id, tokens, stored: 0, blocks: Vec::new(), since: now });
                Vec::new()
            }
            Event::Computed { id, length, sampled } => {
                if let Some(sequence) = self.running.iter_mut().find(|sequence| sequence.id == id) {
                    sequence.stored += length;
                    sequence.tokens += usize::from(sampled);
                }
                Vec::new()
            }
            Event::Left { id } => {
                self.waiting.retain(|sequence| sequence.id != id);
                if let Some(index) = self.running.iter().position(|sequence| sequence.id == id) {
                    let sequence = self.running.remove(index);
                    self.take_back(sequence.blocks);
                }
                Vec::new()
            }
            Event::Tick => self.tick(now),
        }
    }

    fn tick(&mut self, now: Duration) -> Vec<Effect> {
        let mut effects = Vec::new();
        self.make_room_for_decodes(now, &mut effects);
        self.admit(now, &mut effects);
        self.share_out(&mut effects);
        effects
    }

    /// Gives every decode a block for its token where its last one is full.
    fn make_room_for_decodes(&mut self, now: Duration, effects: &mut Vec<Effect>) {
        let mut index = 0;
        while index < self.running.len() {
            let needed = self.blocks_for(self.running[index].tokens);
            while index < self.running.len() && self.running[index].blocks.len() < needed {
                if let Some(block) = self.free.pop() {
                    self.running[index].blocks.push(block);
                } else if let Some(mut last) = self.running.pop() {
                    let blocks = std::mem::take(&mut last.blocks);
                    self.take_back(blocks);
                    effects.push(Effect::Preempted { id: last.id });
                    self.waiting.push_front(Sequence { stored: 0, since: now, ..last });
                }
            }
            index += 1;
        }
    }

    fn admit(&mut self, now: Duration, effects: &mut Vec<Effect>) {
        while self.running.len() < self.limits.max_sequences {
            let Some(first) = self.waiting.front() else { break };
            let needed = self.blocks_for(first.tokens);
            let spare = usize::from(!self.running.is_empty());
            if self.free.len() < needed + spare {
                break;
            }
            let Some(mut sequence) = self.waiting.pop_front() else { break };
            let rest = self.free.len() - needed;
            sequence.blocks = self.free.drain(rest..).rev().collect();
            effects.push(Effect::Admitted { id: sequence.id, waited: now.saturating_sub(sequence.since) });
            self.running.push(sequence);
        }
    }

    fn share_out(&self, effects: &mut Vec<Effect>) {
        let mut lengths = vec![0; self.running.len()];
        let mut budget = self.limits.step_tokens;
        for (length, sequence) in lengths.iter_mut().zip(&self.running) {
            if sequence.pending() == 1 {
                *length = 1;
                budget = budget.saturating_sub(1);
            }
        }
        let prefills = self.running.iter().filter(|sequence| sequence.pending() > 1).count();
        let share = budget.checked_div(prefills).map_or(0, |share| share.max(1));
        for most in [share, usize::MAX] {
            for (length, sequence) in lengths.iter_mut().zip(&self.running) {
                let more = (sequence.pending() - *length).min(most).min(budget);
                *length += more;
                budget -= more;
            }
        }
        for (&length, sequence) in lengths.iter().zip(&self.running) {
            if length > 0 {
                effects.push(Effect::Compute {
                    id: sequence.id,
                    position: sequence.stored,
                    length,
                    blocks: sequence.blocks.clone(),
                    sample: length == sequence.pending(),
                });
            }
        }
    }

    fn blocks_for(&self, tokens: usize) -> usize {
        tokens.div_ceil(self.limits.block_size)
    }

    /// The order of freed blocks is kept, so that the same events give the same blocks.
    fn take_back(&mut self, blocks: Vec<BlockId>) {
        self.free.extend(blocks.into_iter().rev());
    }
}

#[cfg(test)]
mod tests;
