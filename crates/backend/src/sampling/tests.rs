//! Each filter against its definition, written naively over a full sort; chance against its probabilities.

use proptest::prelude::*;
use rand_chacha::rand_core::RngCore as _;

use super::*;

fn softmax(logits: &[f32]) -> Vec<f64> {
    let largest = logits.iter().fold(f32::NEG_INFINITY, |a, b| a.max(*b));
    let weights: Vec<f64> = logits.iter().map(|logit| f64::from(logit - largest).exp()).collect();
    let total: f64 = weights.iter().sum();
    weights.iter().map(|weight| weight / total).collect()
}

/// Tokens from the likeliest down, the lower index first among equals.
fn sorted(logits: &[f32]) -> Vec<usize> {
    let mut tokens: Vec<usize> = (0..logits.len()).collect();
    tokens.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]).then(a.cmp(&b)));
    tokens
}

/// The tokens that the filters leave, as mlx-lm defines them one after the other.
fn naive(logits: &[f32], sampling: &Sampling) -> Vec<usize> {
    let probabilities = softmax(logits);
    let order = sorted(logits);
    let mut kept: Vec<bool> = vec![true; logits.len()];
    if sampling.top_p < 1.0 {
        let mut above = 0.0;
        let mut threshold = logits[order[0]];
        for &token in &order {
            if above < f64::from(sampling.top_p) {
                threshold = logits[token];
            }
            above += probabilities[token];
        }
        (0..logits.len()).for_each(|token| kept[token] &= logits[token] >= threshold);
    }
    if sampling.min_p > 0.0 {
        let floor = logits[order[0]] + sampling.min_p.ln();
        (0..logits.len()).for_each(|token| kept[token] &= logits[token] >= floor);
    }
    let mut left: Vec<usize> = order.into_iter().filter(|&token| kept[token]).collect();
    if sampling.top_k > 0 {
        left.truncate(sampling.top_k);
    }
    left.sort_unstable();
    left
}

fn left_by(logits: &[f32], sampling: &Sampling) -> Vec<usize> {
    let mut sampler = Sampler::new(Sampling { temperature: 1.0, ..sampling.clone() }, 0);
    let largest = logits[likeliest(logits).unwrap()];
    let total = logits.iter().map(|&logit| probability(logit, largest, 1.0)).sum();
    sampler.filter(logits, largest, total);
    sampler.candidates.iter().map(|&token| token as usize).collect()
}

/// Logits on a coarse grid, so that ties are frequent.
fn logits() -> impl Strategy<Value = Vec<f32>> {
    prop_oneof![
        prop::collection::vec((-40_i32..40).prop_map(|step| step as f32 / 4.0), 1..60),
        prop::collection::vec(-8.0_f32..8.0, 1..700),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn filters_keep_what_their_definitions_keep(
        logits in logits(),
        top_k in prop_oneof![Just(0_usize), 1_usize..80],
        top_p in prop_oneof![Just(1.0_f32), 0.01_f32..1.0],
        min_p in prop_oneof![Just(0.0_f32), 0.001_f32..1.0],
    ) {
        let sampling = Sampling { top_k, top_p, min_p, ..Sampling::default() };
        prop_assert_eq!(left_by(&logits, &sampling), naive(&logits, &sampling));
    }

    #[test]
    fn any_parameters_give_a_token_that_the_filters_keep(
        mut logits in logits(),
        temperature in prop_oneof![Just(0.0_f32), Just(1e-30_f32), 0.1_f32..3.0, Just(1e6_f32)],
        top_k in 0_usize..5,
        top_p in 0.0_f32..=1.0,
        seed in any::<u64>(),
    ) {
        let sampling = Sampling { temperature, top_k, top_p, seed: Some(seed), ..Sampling::default() };
        prop_assert!(sampling.check(logits.len()).is_ok());
        let kept = naive(&logits, &sampling);
        let sampled = Sampler::new(sampling, 0).sample(&mut logits).unwrap();
        prop_assert!(kept.contains(&(sampled.token as usize)));
        let exact = softmax(&logits)[sampled.token as usize].ln();
        prop_assert!((f64::from(sampled.logprob) - exact).abs() < 1e-4);
    }

    #[test]
    fn penalties_see_the_tokens_of_the_window(
        tokens in prop::collection::vec(0_u32..6, 0..40),
        cut in 0_usize..40,
        window in 1_usize..12,
        repetition in 0.5_f32..2.0,
        presence in -1.0_f32..1.0,
        frequency in -1.0_f32..1.0,
    ) {
        let sampling = Sampling {
            repetition_penalty: repetition,
            presence_penalty: presence,
            frequency_penalty: frequency,
            penalty_window: window,
            ..Sampling::default()
        };
        let mut sampler = Sampler::new(sampling, 0);
        let cut = cut.min(tokens.len());
        sampler.observe(&tokens[..cut]);
        tokens[cut..].iter().for_each(|&token| sampler.observe(&[token]));
        let before = [1.5_f32, -0.5, 0.0, 3.0, -2.0, 0.25];
        let mut logits = before;
        sampler.process(&mut logits);
        let seen = &tokens[tokens.len().saturating_sub(window)..];
        for (token, (before, after)) in before.into_iter().zip(logits).enumerate() {
            let count = seen.iter().filter(|&&other| other as usize == token).count();
            let mut expected = before;
            if count > 0 {
                expected = if before < 0.0 { before * repetition } else { before / repetition };
                expected -= presence + frequency * count as f32;
            }
            prop_assert!((expected - after).abs() < 1e-5, "token {}: {} {}", token, expected, after);
        }
    }
}

#[test]
fn tokens_come_as_often_as_their_probabilities_say() {
    let start = [2.0_f32, 1.0, 0.0, -1.0, 1.5, f32::NEG_INFINITY];
    for (temperature, top_k) in [(1.0, 0), (0.5, 0), (2.0, 3)] {
        let sampling = Sampling { temperature, top_k, seed: Some(7), ..Sampling::default() };
        let kept = naive(&start[..5], &sampling);
        let tempered: Vec<f32> = (0..6)
            .map(|token| if kept.contains(&token) { start[token] / temperature } else { f32::NEG_INFINITY })
            .collect();
        let expected = softmax(&tempered);
        let mut sampler = Sampler::new(sampling, 0);
        const DRAWS: usize = 20_000;
        let mut counts = [0_usize; 6];
        for _ in 0..DRAWS {
            counts[sampler.sample(&mut start.clone()).unwrap().token as usize] += 1;
        }
        for (count, expected) in counts.into_iter().zip(expected) {
            // Five standard deviations of a binomial count.
            let bound = 5.0 * (DRAWS as f64 * expected * (1.0 - expected)).sqrt();
            assert!((count as f64 - DRAWS as f64 * expected).abs() <= bound, "{counts:?}");
        }
    }
}

#[test]
fn a_seed_gives_the_same_tokens_everywhere() {
    let draw = |seed| {
        let mut sampler = Sampler::new(Sampling { temperature: 1.0, seed: Some(seed), ..Sampling::default() }, 99);
        (0..12).map(|_| sampler.sample(&mut [0.0; 10]).unwrap().token).collect::<Vec<_>>()
    };
    assert_eq!(draw(5), draw(5));
    assert_ne!(draw(5), draw(6));
    // ChaCha8 is the same on every machine: these are its first numbers, cut to ten equal parts.
    let mut generator = ChaCha8Rng::seed_from_u64(5);
    let expected: Vec<u32> =
        (0..12).map(|_| ((generator.next_u64() >> 11) as f64 / 9_007_199_254_740_992.0 * 10.0) as u32).collect();
    assert_eq!(draw(5), expected);
}

#[test]
fn the_first_of_equals_is_the_likeliest() {
    let mut sampler = Sampler::new(Sampling::default(), 0);
    assert_eq!(sampler.sample(&mut [1.0, 3.0, 3.0, 2.0]).unwrap().token, 1);
}

#[test]
fn no_filter_but_top_p_zero_leaves_the_likeliest() {
    let sampling = Sampling { top_p: 0.0, ..Sampling::default() };
    assert_eq!(left_by(&[1.0, 3.0, 2.0], &sampling), [1]);
}

#[test]
fn logits_that_are_no_numbers_are_errors() {
    for temperature in [0.0, 1.0] {
        let mut sampler = Sampler::new(Sampling { temperature, top_k: 2, ..Sampling::default() }, 0);
        for (mut bad, words) in [
            (vec![0.0, f32::NAN], "NaN for token 1"),
            (vec![f32::INFINITY, 0.0], "inf for token 0"),
            (vec![f32::NEG_INFINITY; 3], "no possible token among 3"),
            (vec![], "no possible token among 0"),
        ] {
            let message = sampler.sample(&mut bad).unwrap_err().to_string();
            assert!(message.contains(words), "{message}");
        }
    }
}

#[test]
fn parameters_out_of_range_are_named() {
    let base = Sampling::default();
    for (sampling, parameter) in [
        (Sampling { temperature: -1.0, ..base.clone() }, "temperature"),
        (Sampling { temperature: f32::NAN, ..base.clone() }, "temperature"),
        (Sampling { top_p: 1.5, ..base.clone() }, "top_p"),
        (Sampling { min_p: -0.1, ..base.clone() }, "min_p"),
        (Sampling { repetition_penalty: 0.0, ..base.clone() }, "repetition_penalty"),
        (Sampling { presence_penalty: f32::INFINITY, ..base.clone() }, "presence_penalty"),
        (Sampling { frequency_penalty: 1e9, ..base.clone() }, "frequency_penalty"),
        (Sampling { logit_bias: vec![(10, 1.0)], ..base.clone() }, "logit_bias"),
        (Sampling { logit_bias: vec![(3, f32::NAN)], ..base.clone() }, "logit_bias"),
    ] {
        let message = sampling.check(10).unwrap_err().to_string();
        assert!(message.contains(parameter), "{message}");
    }
    assert!(base.check(10).is_ok());
}

#[test]
fn the_likeliest_tokens_with_their_logprobs() {
    let logits = [0.0, 2.0, 1.0, 2.0, f32::NEG_INFINITY];
    let exact = softmax(&logits);
    let top = top_logprobs(&logits, 3).unwrap();
    assert_eq!(top.iter().map(|(token, _)| *token).collect::<Vec<_>>(), [1, 3, 2]);
    for (token, logprob) in top {
        assert!((f64::from(logprob) - exact[token as usize].ln()).abs() < 1e-6);
    }
    assert_eq!(top_logprobs(&logits, 50).unwrap().len(), 5);
}
