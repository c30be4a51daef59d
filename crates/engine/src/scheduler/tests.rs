//! The scheduler's transitions, written as scripts, and what must hold whatever comes.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

const LIMITS: Limits = Limits { max_sequences: 3, step_tokens: 8, blocks: 8, block_size: 4 };

fn at(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// One line an effect: `+1` admitted, `-1` preempted, `1@0+4` computes 4 tokens from 0, `!` wants the next token.
fn said(effects: &[Effect]) -> String {
    let lines: Vec<String> = effects
        .iter()
        .map(|effect| match effect {
            Effect::Admitted { id, .. } => format!("+{}", id.0),
            Effect::Preempted { id } => format!("-{}", id.0),
            Effect::Compute { id, position, length, sample, .. } => {
                format!("{}@{position}+{length}{}", id.0, if *sample { "!" } else { "" })
            }
        })
        .collect();
    lines.join(" ")
}

/// Runs a script: `a1:5` sequence 1 arrives with 5 tokens, `l1` it leaves, `t` a step is made and all of it computed;
/// each `t` must have said what is expected of it.
fn check(limits: Limits, script: &[(&str, &str)]) {
    let mut scheduler = Scheduler::new(limits);
    for (number, (event, expected)) in script.iter().enumerate() {
        let now = at(number as u64);
        let id = |text: &str| SequenceId(text.parse().unwrap());
        if *event == "t" {
            let effects = scheduler.step(Event::Tick, now);
            assert_eq!(said(&effects), *expected, "event {number} of {script:?}");
            for effect in effects {
                if let Effect::Compute { id, length, sample, .. } = effect {
                    scheduler.step(Event::Computed { id, length, sampled: sample }, now);
                }
            }
        } else if let Some((sequence, tokens)) = event.strip_prefix('a').and_then(|rest| rest.split_once(':')) {
            let arrived = Event::Arrived { id: id(sequence), tokens: tokens.parse().unwrap() };
            assert!(scheduler.step(arrived, now).is_empty());
        } else {
            assert!(scheduler.step(Event::Left { id: id(&event[1..]) }, now).is_empty());
        }
    }
}

#[test]
fn a_short_prompt_prefills_at_once_and_then_decodes() {
    check(LIMITS, &[("t", ""), ("a1:3", ""), ("t", "+1 1@0+3!"), ("t", "1@3+1!"), ("l1", ""), ("t", "")]);
}

#[test]
fn a_prompt_of_one_token_wants_its_next_token_at_once() {
    check(LIMITS, &[("a1:1", ""), ("t", "+1 1@0+1!"), ("t", "1@1+1!")]);
}

#[test]
fn a_long_prompt_comes_in_chunks_and_decodes_go_along() {
    check(LIMITS, &[("a1:2", ""), ("t", "+1 1@0+2!"), ("a2:12", ""), ("t", "+2 1@2+1! 2@0+7"), ("t", "1@3+1! 2@7+5!")]);
}

#[test]
fn prompts_share_the_budget_evenly_and_the_rest_goes_to_the_oldest() {
    check(LIMITS, &[("a1:12", ""), ("a2:3", ""), ("t", "+1 +2 1@0+5 2@0+3!"), ("t", "1@5+7! 2@3+1!")]);
}

#[test]
fn no_more_sequences_run_than_allowed_and_they_are_admitted_in_order() {
    check(
        LIMITS,
        &[
            ("a1:1", ""),
            ("a2:1", ""),
            ("a3:1", ""),
            ("a4:1", ""),
            ("t", "+1 +2 +3 1@0+1! 2@0+1! 3@0+1!"),
            ("l2", ""),
            ("t", "+4 1@1+1! 3@1+1! 4@0+1!"),
        ],
    );
}

#[test]
fn a_sequence_waits_until_its_blocks_are_free_and_nobody_overtakes_it() {
    let limits = Limits { blocks: 3, ..LIMITS };
    check(limits, &[("a1:8", ""), ("t", "+1 1@0+8!"), ("a2:5", ""), ("a3:1", ""), ("t", "1@8+1!")]);
    check(limits, &[("a1:4", ""), ("t", "+1 1@0+4!"), ("a2:4", ""), ("t", "1@4+1!"), ("l1", ""), ("t", "+2 2@0+4!")]);
}

#[test]
fn the_youngest_gives_way_and_computes_again() {
    // Four blocks of two tokens: both grow until none is free, then the younger one waits for the older one's end.
    let limits = Limits { blocks: 4, block_size: 2, ..LIMITS };
    check(
        limits,
        &[
            ("a1:2", ""),
            ("t", "+1 1@0+2!"),
            ("a2:2", ""),
            ("t", "+2 1@2+1! 2@0+2!"),
            ("t", "1@3+1! 2@2+1!"),
            ("t", "-2 1@4+1!"),
            ("t", "1@5+1!"),
            ("l1", ""),
            ("t", "+2 2@0+4!"),
        ],
    );
}

#[test]
fn the_wait_is_measured_from_the_arrival() {
    let mut scheduler = Scheduler::new(LIMITS);
    scheduler.step(Event::Arrived { id: SequenceId(1), tokens: 1 }, at(10));
    let effects = scheduler.step(Event::Tick, at(25));
    assert_eq!(effects[0], Effect::Admitted { id: SequenceId(1), waited: at(15) });
}

#[derive(Debug, Clone)]
enum Move {
    Arrive { prompt: usize, answer: usize },
    Cancel(prop::sample::Index),
    Tick,
}

fn moves() -> impl Strategy<Value = Vec<Move>> {
    let one = prop_oneof![
        2 => (1_usize..=20, 1_usize..=12).prop_map(|(prompt, answer)| Move::Arrive { prompt, answer }),
        1 => any::<prop::sample::Index>().prop_map(Move::Cancel),
        4 => Just(Move::Tick),
    ];
    prop::collection::vec(one, 0..80)
}

/// What the test believes of a sequence: tokens known, tokens at the end, tokens stored.
struct Belief {
    tokens: usize,
    end: usize,
    stored: usize,
}

/// Makes a step, checks it against what is believed, and returns whether anything was computed.
fn tick(scheduler: &mut Scheduler, beliefs: &mut BTreeMap<SequenceId, Belief>) -> bool {
    let effects = scheduler.step(Event::Tick, Duration::ZERO);
    let (mut held, mut tokens, mut parts) = (BTreeSet::new(), 0, 0);
    for effect in effects {
        match effect {
            Effect::Admitted { .. } => {}
            Effect::Preempted { id } => beliefs.get_mut(&id).unwrap().stored = 0,
            Effect::Compute { id, position, length, blocks, sample } => {
                let belief = beliefs.get_mut(&id).unwrap();
                assert_eq!(position, belief.stored, "a sequence goes on where it stopped");
                assert!(length > 0 && position + length <= belief.tokens);
                assert!(blocks.len() * scheduler.limits.block_size >= position + length, "the tokens have room");
                assert!(blocks.iter().all(|block| held.insert(*block)), "a block has one owner");
                assert_eq!(sample, position + length == belief.tokens);
                (tokens, parts) = (tokens + length, parts + 1);
                belief.stored += length;
                belief.tokens += usize::from(sample);
                scheduler.step(Event::Computed { id, length, sampled: sample }, Duration::ZERO);
                if belief.tokens == belief.end {
                    beliefs.remove(&id);
                    scheduler.step(Event::Left { id }, Duration::ZERO);
                }
            }
        }
    }
    assert!(tokens <= scheduler.limits.step_tokens && parts <= scheduler.limits.max_sequences);
    assert!(held.iter().all(|block| (block.0 as usize) < scheduler.limits.blocks));
    parts > 0
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(500) })]

    #[test]
    fn every_sequence_ends_and_no_block_is_lost(
        moves in moves(),
        max_sequences in 1_usize..5,
        step_tokens in 1_usize..12,
        block_size in 1_usize..5,
        spare in 0_usize..12,
    ) {
        // The longest sequence, 20 + 12 tokens, fits alone.
        let blocks = 32_usize.div_ceil(block_size) + spare;
        let mut scheduler = Scheduler::new(Limits { max_sequences, step_tokens, blocks, block_size });
        let mut beliefs: BTreeMap<SequenceId, Belief> = BTreeMap::new();
        for (number, one) in moves.into_iter().enumerate() {
            match one {
                Move::Arrive { prompt, answer } => {
                    let id = SequenceId(number as u64);
                    beliefs.insert(id, Belief { tokens: prompt, end: prompt + answer, stored: 0 });
                    scheduler.step(Event::Arrived { id, tokens: prompt }, Duration::ZERO);
                }
                Move::Cancel(index) => {
                    let ids: Vec<SequenceId> = beliefs.keys().copied().collect();
                    if !ids.is_empty() {
                        let id = *index.get(&ids);
                        beliefs.remove(&id);
                        scheduler.step(Event::Left { id }, Duration::ZERO);
                    }
                }
                Move::Tick => { tick(&mut scheduler, &mut beliefs); }
            }
        }
        let mut idle = 0;
        while !beliefs.is_empty() {
            idle = if tick(&mut scheduler, &mut beliefs) { 0 } else { idle + 1 };
            prop_assert!(idle < 2, "nothing moves while {} sequences wait", beliefs.len());
        }
        prop_assert!(scheduler.running.is_empty() && scheduler.waiting.is_empty());
        prop_assert_eq!(scheduler.free.iter().copied().collect::<BTreeSet<_>>().len(), blocks);
    }
}
