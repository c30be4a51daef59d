//! Attention over the paged pool: ragged spans, grouped heads, windows, soft caps, block boundaries, several layers.

use super::{Promises, assert_close, assert_same_bits, numbers};
use crate::{Attention, Backend, Batch, BlockId, KvLayer, KvLayout};

const BLOCK_SIZE: usize = 8;

#[derive(Debug, Clone, Copy)]
struct Case {
    heads: usize,
    kv_heads: usize,
    key_dim: usize,
    value_dim: usize,
    window: Option<usize>,
    soft_cap: Option<f32>,
}

/// One sequence: its queries, keys and values of all positions.
struct Sequence {
    q: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
    blocks: Vec<BlockId>,
}

pub(super) fn check<B: Backend>(backend: &B, promises: Promises) {
    let plain = Case { heads: 2, kv_heads: 2, key_dim: 16, value_dim: 16, window: None, soft_cap: None };
    let cases = [
        plain,
        Case { heads: 6, kv_heads: 2, key_dim: 20, value_dim: 20, ..plain },
        Case { heads: 4, kv_heads: 1, value_dim: 12, ..plain },
        Case { heads: 4, window: Some(1), ..plain },
        Case { heads: 4, window: Some(5), ..plain },
        Case { window: Some(BLOCK_SIZE), ..plain },
        Case { window: Some(11), soft_cap: Some(0.7), ..plain },
        Case { soft_cap: Some(2.0), ..plain },
    ];
    for case in cases {
        check_case(backend, promises, case);
    }
}

fn check_case<B: Backend>(backend: &B, promises: Promises, case: Case) {
    // Lengths around the borders of blocks; tables in no order.
    let lengths = [1, BLOCK_SIZE - 1, BLOCK_SIZE, BLOCK_SIZE + 1, 3 * BLOCK_SIZE + 2];
    let mut free: Vec<u32> = (0..24).map(|block| (block * 7 + 5) % 24).collect();
    let sequences: Vec<Sequence> = lengths
        .iter()
        .enumerate()
        .map(|(index, &length)| {
            let seed = 10 * index as u64;
            let blocks = free.split_off(free.len() - length.div_ceil(BLOCK_SIZE)).into_iter().map(BlockId).collect();
            Sequence {
                q: numbers(seed + 1, length * case.heads * case.key_dim).iter().map(|q| q * 3.0).collect(),
                k: numbers(seed + 2, length * case.kv_heads * case.key_dim),
                v: numbers(seed + 3, length * case.kv_heads * case.value_dim),
                blocks,
            }
        })
        .collect();
    let expected: Vec<Vec<f64>> = sequences.iter().map(|sequence| exact(sequence, case)).collect();

    let whole = run(backend, case, &sequences, &[usize::MAX]);
    for (index, (found, expected)) in whole.iter().zip(&expected).enumerate() {
        assert_close(&format!("attention {case:?}, sequence {index}"), found, expected, promises);
    }
    for chunks in [&[1][..], &[3, 5, 1], &[BLOCK_SIZE, 2]] {
        let parts = run(backend, case, &sequences, chunks);
        for (index, ((found, expected), whole)) in parts.iter().zip(&expected).zip(&whole).enumerate() {
            let what = format!("attention {case:?}, sequence {index}, in chunks of {chunks:?}");
            assert_close(&what, found, expected, promises);
            if promises.batch_invariant {
                assert_same_bits(&what, found, whole);
            }
        }
    }
    if promises.batch_invariant {
        for (index, sequence) in sequences.iter().enumerate() {
            let alone = run(backend, case, std::slice::from_ref(sequence), &[usize::MAX]);
            assert_same_bits(&format!("attention {case:?}, sequence {index} alone"), &alone[0], &whole[index]);
        }
    }
}

/// The results of every sequence, computed in steps that each take the next of `chunks` (over and over) from every
/// sequence that has tokens left. Layer 0 is filled with other numbers, so that layers mixed up show.
fn run<B: Backend>(backend: &B, case: Case, sequences: &[Sequence], chunks: &[usize]) -> Vec<Vec<f32>> {
    let Case { heads, kv_heads, key_dim, value_dim, window, soft_cap } = case;
    let layer = KvLayer { heads: kv_heads, key_dim, value_dim };
    let layout = KvLayout { layers: vec![layer; 2], block_size: BLOCK_SIZE };
    let mut kv = backend.kv_pool(&layout, 24).unwrap();
    let attention = |layer| Attention { layer, heads, scale: (key_dim as f32).powf(-0.5), window, soft_cap };
    let lengths: Vec<usize> = sequences.iter().map(|sequence| sequence.v.len() / (kv_heads * value_dim)).collect();
    let mut results = vec![Vec::new(); sequences.len()];
    let mut stored = vec![0; sequences.len()];
    let mut chunks = chunks.iter().cycle();
    while stored != lengths {
        let chunk = *chunks.next().unwrap();
        let mut batch = Batch::default();
        let (mut q, mut k, mut v) = (Vec::new(), Vec::new(), Vec::new());
        let mut taken = Vec::new();
        for (index, sequence) in sequences.iter().enumerate() {
            let range = stored[index]..lengths[index].min(stored[index].saturating_add(chunk));
            if range.is_empty() {
                continue;
            }
            batch.push(&vec![0; range.len()], range.start, &sequence.blocks, false);
            let part = |data: &[f32], width: usize| data[range.start * width..range.end * width].to_vec();
            q.extend(part(&sequence.q, heads * key_dim));
            k.extend(part(&sequence.k, kv_heads * key_dim));
            v.extend(part(&sequence.v, kv_heads * value_dim));
            stored[index] = range.end;
            taken.push((index, range.len()));
        }
        let q = backend.from_host(&q, heads * key_dim).unwrap();
        let other = backend.from_host(&vec![0.5; k.len()], kv_heads * key_dim).unwrap();
        let k = backend.from_host(&k, kv_heads * key_dim).unwrap();
        let v = backend.from_host(&v, kv_heads * value_dim).unwrap();
        let out = backend.attention(&q, &k, &v, &batch, &mut kv, &attention(1)).unwrap();
        backend.attention(&q, &other, &v, &batch, &mut kv, &attention(0)).unwrap();
        let out = backend.to_host(&out).unwrap();
        let mut rows = out.chunks(heads * value_dim);
        for (index, length) in taken {
            rows.by_ref().take(length).for_each(|row| results[index].extend_from_slice(row));
        }
    }
    results
}

fn exact(sequence: &Sequence, case: Case) -> Vec<f64> {
    let Case { heads, kv_heads, key_dim, value_dim, window, soft_cap } = case;
    let length = sequence.v.len() / (kv_heads * value_dim);
    let scale = f64::from((key_dim as f32).powf(-0.5));
    let mut out = Vec::new();
    for row in 0..length {
        for head in 0..heads {
            let kv_head = head / (heads / kv_heads);
            let query = &sequence.q[(row * heads + head) * key_dim..][..key_dim];
            let first = window.map_or(0, |window| (row + 1).saturating_sub(window));
            let scores: Vec<f64> = (first..=row)
                .map(|token| {
                    let key = &sequence.k[(token * kv_heads + kv_head) * key_dim..][..key_dim];
                    let dot: f64 = query.iter().zip(key).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
                    soft_cap.map_or(dot * scale, |cap| f64::from(cap) * (dot * scale / f64::from(cap)).tanh())
                })
                .collect();
            let largest = scores.iter().fold(f64::NEG_INFINITY, |a, b| a.max(*b));
            let total: f64 = scores.iter().map(|score| (score - largest).exp()).sum();
            out.extend((0..value_dim).map(|feature| {
                let values = (first..=row)
                    .map(|token| f64::from(sequence.v[(token * kv_heads + kv_head) * value_dim + feature]));
                scores.iter().zip(values).map(|(score, v)| (score - largest).exp() / total * v).sum::<f64>()
            }));
        }
    }
    out
}
