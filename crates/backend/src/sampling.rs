//! From logits to the next token: what a request may ask for, and the sampler that each sequence owns.
//!
//! The order is mlx-lm's: logit bias and penalties change the logits; top-p, min-p and top-k look at the distribution
//! that these give; temperature is applied to what they leave.

use std::cmp::Ordering;
use std::collections::{HashMap, VecDeque};

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

use crate::{Error, Result, TokenId};

/// How the next token is chosen. The default is the likeliest token, nothing else.
#[derive(Debug, Clone, PartialEq)]
pub struct Sampling {
    /// Divides the logits; 0 takes the likeliest token, the first of equals.
    pub temperature: f32,
    /// Only so many of the likeliest tokens; 0 for all.
    pub top_k: usize,
    /// Only the likeliest tokens that together have this probability (and those as likely as the last of them); 1 for
    /// all, 0 for the likeliest.
    pub top_p: f32,
    /// Only tokens that have at least this part of the likeliest one's probability; 0 for all.
    pub min_p: f32,
    /// The same seed, the same tokens; none for chance.
    pub seed: Option<u64>,
    /// Divides positive logits of tokens seen, multiplies negative ones; 1 for none.
    pub repetition_penalty: f32,
    /// Subtracted from the logits of tokens seen.
    pub presence_penalty: f32,
    /// Subtracted from the logit of a token each time it was seen.
    pub frequency_penalty: f32,
    /// Tokens, prompt and answer together, that the penalties look back on.
    pub penalty_window: usize,
    /// Added to the logits of these tokens.
    pub logit_bias: Vec<(TokenId, f32)>,
}

impl Default for Sampling {
    fn default() -> Self {
        Self {
            temperature: 0.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            seed: None,
            repetition_penalty: 1.0,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            penalty_window: 20,
            logit_bias: Vec::new(),
        }
    }
}

impl Sampling {
    /// Whether every parameter is within its range for a vocabulary of this size.
    pub fn check(&self, vocabulary: usize) -> Result<()> {
        let check = |parameter: &'static str, holds: bool, expected: &str, found: f32| {
            if holds {
                return Ok(());
            }
            Err(Error::Sampling { parameter, expected: expected.to_owned(), found: found.to_string() })
        };
        let part = 0.0..=1.0;
        let penalty = -100.0..=100.0;
        check("temperature", (0.0..=1e6).contains(&self.temperature), "a number of at least 0", self.temperature)?;
        check("top_p", part.contains(&self.top_p), "a number from 0 to 1", self.top_p)?;
        check("min_p", part.contains(&self.min_p), "a number from 0 to 1", self.min_p)?;
        check(
            "repetition_penalty",
            (1e-3..=1e3).contains(&self.repetition_penalty),
            "a number from 0.001 to 1000",
            self.repetition_penalty,
        )?;
        let expected = "a number from -100 to 100";
        check("presence_penalty", penalty.contains(&self.presence_penalty), expected, self.presence_penalty)?;
        check("frequency_penalty", penalty.contains(&self.frequency_penalty), expected, self.frequency_penalty)?;
        for &(token, bias) in &self.logit_bias {
            if token as usize >= vocabulary {
                return Err(Error::Sampling {
                    parameter: "logit_bias",
                    expected: format!("tokens below {vocabulary}"),
                    found: format!("token {token}"),
                });
            }
            check("logit_bias", bias.is_finite(), "finite numbers", bias)?;
        }
        Ok(())
    }

    fn has_penalties(&self) -> bool {
        self.penalty_window > 0
            && (self.repetition_penalty != 1.0 || self.presence_penalty != 0.0 || self.frequency_penalty != 0.0)
    }

    fn has_filters(&self) -> bool {
        self.top_k > 0 || self.top_p < 1.0 || self.min_p > 0.0
    }
}

/// A chosen token.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sampled {
    /// The token.
    pub token: TokenId,
    /// Logarithm of its probability after bias and penalties, before filters and temperature.
    pub logprob: f32,
}

/// Chooses the tokens of one sequence. It owns its generator, so a sequence's tokens depend on its own seed and logits
/// alone, whatever shares the batch.
#[derive(Debug, Clone)]
pub struct Sampler {
    sampling: Sampling,
    generator: ChaCha8Rng,
    recent: VecDeque<TokenId>,
    /// How often each token is in `recent`.
    counts: HashMap<TokenId, u32>,
    /// Tokens in the running, kept for its memory.
    candidates: Vec<TokenId>,
}

impl Sampler {
    /// A sampler with parameters that have been checked. `entropy` seeds it where the request names no seed.
    pub fn new(sampling: Sampling, entropy: u64) -> Self {
        let generator = ChaCha8Rng::seed_from_u64(sampling.seed.unwrap_or(entropy));
        Self { sampling, generator, recent: VecDeque::new(), counts: HashMap::new(), candidates: Vec::new() }
    }

    /// The parameters.
    pub fn sampling(&self) -> &Sampling {
        &self.sampling
    }

    /// Takes note of tokens that were not sampled here, such as those of the prompt: penalties look at them too.
    pub fn observe(&mut self, tokens: &[TokenId]) {
        if !self.sampling.has_penalties() {
            return;
        }
        let window = self.sampling.penalty_window;
        for &token in &tokens[tokens.len().saturating_sub(window)..] {
            if self.recent.len() == window
                && let Some(gone) = self.recent.pop_front()
                && let Some(count) = self.counts.get_mut(&gone)
            {
                *count -= 1;
                if *count == 0 {
                    self.counts.remove(&gone);
                }
            }
            self.recent.push_back(token);
            *self.counts.entry(token).or_default() += 1;
        }
    }

    /// Chooses the next token and takes note of it. `logits`, one a token of the vocabulary, are left with bias and
    /// penalties applied, for [`top_logprobs`]; −∞ excludes a token.
    ///
    /// NaN or +∞ among the logits, or nothing but −∞, is an error.
    pub fn sample(&mut self, logits: &mut [f32]) -> Result<Sampled> {
        self.process(logits);
        let best = likeliest(logits)?;
        let largest = logits[best];
        let total: f64 = logits.iter().map(|&logit| probability(logit, largest, 1.0)).sum();
        let token = if self.sampling.temperature == 0.0 {
            best
        } else if self.sampling.has_filters() {
            self.filter(logits, largest, total);
            let candidates = self.candidates.iter().map(|&token| token as usize);
            choose(&mut self.generator, candidates, logits, largest, self.sampling.temperature).unwrap_or(best)
        } else {
            choose(&mut self.generator, 0..logits.len(), logits, largest, self.sampling.temperature).unwrap_or(best)
        };
        let logprob = (f64::from(logits[token] - largest) - total.ln()) as f32;
        let token = token as TokenId;
        self.observe(&[token]);
        Ok(Sampled { token, logprob })
    }

    /// Applies bias and penalties.
    fn process(&self, logits: &mut [f32]) {
        let sampling = &self.sampling;
        for &(token, bias) in &sampling.logit_bias {
            if let Some(logit) = logits.get_mut(token as usize) {
                *logit += bias;
            }
        }
        for (&token, &count) in &self.counts {
            if let Some(logit) = logits.get_mut(token as usize) {
                let factor = sampling.repetition_penalty;
                *logit = if *logit < 0.0 { *logit * factor } else { *logit / factor };
                *logit -= sampling.presence_penalty + sampling.frequency_penalty * count as f32;
            }
        }
    }

    /// Leaves in `candidates`, ascending, the tokens that pass top-p, min-p and top-k. Each of them keeps the
    /// likeliest tokens, so that all follow from the order of the few likeliest; the rest is never sorted.
    fn filter(&mut self, logits: &[f32], largest: f32, total: f64) {
        let Sampling { top_k, top_p, min_p, .. } = self.sampling;
        let floor = if min_p > 0.0 { largest + min_p.ln() } else { f32::NEG_INFINITY };
        self.candidates.clear();
        let passing = logits.iter().enumerate().filter(|(_, logit)| **logit >= floor && **logit > f32::NEG_INFINITY);
        self.candidates.extend(passing.map(|(token, _)| token as TokenId));
        let by_likelihood = |&a: &TokenId, &b: &TokenId| {
            let order = logits[b as usize].partial_cmp(&logits[a as usize]);
            order.unwrap_or(Ordering::Equal).then(a.cmp(&b))
        };
        if (1..self.candidates.len()).contains(&top_k) {
            self.candidates.select_nth_unstable_by(top_k, by_likelihood);
            self.candidates.truncate(top_k);
        }
        if top_p < 1.0 {
            let threshold = top_p_threshold(
                &mut self.candidates,
                by_likelihood,
                logits,
                |logit| probability(logit, largest, 1.0),
                f64::from(top_p) * total,
            );
            self.candidates.retain(|&token| logits[token as usize] >= threshold);
        }
        self.candidates.sort_unstable();
    }
}

/// The logit of the last token that top-p keeps: the first, from the likeliest down, with which the sum reaches
/// `mass`. Sorts the front of `candidates`, as far as needed.
fn top_p_threshold(
    candidates: &mut [TokenId],
    by_likelihood: impl Fn(&TokenId, &TokenId) -> Ordering + Copy,
    logits: &[f32],
    probability: impl Fn(f32) -> f64,
    mass: f64,
) -> f32 {
    let mut sorted = 0;
    let mut sum = 0.0;
    let mut threshold = f32::NEG_INFINITY;
    let mut front = 128;
    while sorted < candidates.len() {
        let rest = &mut candidates[sorted..];
        let part = front.min(rest.len());
        if part < rest.len() {
            rest.select_nth_unstable_by(part, by_likelihood);
        }
        let part = &mut rest[..part];
        part.sort_unstable_by(by_likelihood);
        for &token in &*part {
            threshold = logits[token as usize];
            sum += probability(threshold);
            if sum >= mass {
                return threshold;
            }
        }
        sorted += part.len();
        front *= 4;
    }
    threshold
}

/// The most likely tokens with the logarithms of their probabilities, likeliest first. `logits` as
/// [`Sampler::sample`] leaves them.
pub fn top_logprobs(logits: &[f32], count: usize) -> Result<Vec<(TokenId, f32)>> {
    let largest = logits[likeliest(logits)?];
    let normaliser = logits.iter().map(|&logit| probability(logit, largest, 1.0)).sum::<f64>().ln();
    let mut tokens: Vec<TokenId> = (0..logits.len() as TokenId).collect();
    let by_likelihood = |&a: &TokenId, &b: &TokenId| {
        let order = logits[b as usize].partial_cmp(&logits[a as usize]);
        order.unwrap_or(Ordering::Equal).then(a.cmp(&b))
    };
    if count < tokens.len() {
        tokens.select_nth_unstable_by(count, by_likelihood);
        tokens.truncate(count);
    }
    tokens.sort_unstable_by(by_likelihood);
    let logprob = |token: TokenId| (f64::from(logits[token as usize] - largest) - normaliser) as f32;
    Ok(tokens.into_iter().map(|token| (token, logprob(token))).collect())
}

/// The largest logit, the first of equals.
fn likeliest(logits: &[f32]) -> Result<usize> {
    let mut best = None;
    let mut largest = f32::NEG_INFINITY;
    for (token, &logit) in logits.iter().enumerate() {
        if logit.is_nan() || logit == f32::INFINITY {
            return Err(Error::Logits { found: format!("{logit} for token {token}") });
        }
        if logit > largest {
            largest = logit;
            best = Some(token);
        }
    }
    best.ok_or_else(|| Error::Logits { found: format!("no possible token among {}", logits.len()) })
}

/// Probability, up to the common factor, at a temperature.
fn probability(logit: f32, largest: f32, temperature: f32) -> f64 {
    (f64::from(logit - largest) / f64::from(temperature)).exp()
}

/// One of the candidates by chance; `None` where there is none.
fn choose(
    generator: &mut ChaCha8Rng,
    candidates: impl Iterator<Item = usize> + Clone,
    logits: &[f32],
    largest: f32,
    temperature: f32,
) -> Option<usize> {
    let weight = |token: usize| probability(logits[token], largest, temperature);
    let total: f64 = candidates.clone().map(weight).sum();
    // 53 bits: every multiple of 2^-53 in [0, 1) alike.
    let uniform = (generator.next_u64() >> 11) as f64 / (1_u64 << 53) as f64;
    let target = uniform * total;
    let mut sum = 0.0;
    let mut chosen = None;
    for token in candidates {
        let weight = weight(token);
        if weight > 0.0 {
            sum += weight;
            chosen = Some(token);
            if sum > target {
                break;
            }
        }
    }
    chosen
}

#[cfg(test)]
mod tests;
