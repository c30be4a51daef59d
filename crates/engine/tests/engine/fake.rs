//! A device that computes nothing and a model that recites: what it says next is read from what its sequence has
//! stored, so that a wrong block, position or chunk changes the answer.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};

use mlxctl_backend::{
    Activation, Attention, Backend, Batch, Error, KvLayer, KvLayout, LinearWeight, Result, Rope, Sampling, TokenId,
};
use mlxctl_engine::Request;
use mlxctl_models::{Details, Model};
use mlxctl_prompt::{StopStrings, TextStream, Tokenizer};
use mlxctl_weights::Tensor;

/// Ends an answer.
pub(crate) const END: TokenId = 0;
/// In a prompt, makes the step panic.
pub(crate) const BOOM: TokenId = 30;
/// In a prompt, makes the step fail.
pub(crate) const FAIL: TokenId = 31;
/// Tokens: `END`, the letters from 1 on, and those above.
pub(crate) const VOCABULARY: usize = 32;

pub(crate) struct FakeBackend;

impl Backend for FakeBackend {
    type Tensor = Vec<f32>;
    type Linear = ();
    type Vector = ();
    /// A token for each place of the pool.
    type Kv = Vec<Option<TokenId>>;

    fn fingerprint(&self) -> String {
        "fake".to_owned()
    }

    fn kv_pool(&self, layout: &KvLayout, blocks: usize) -> Result<Self::Kv> {
        Ok(vec![None; layout.block_size * blocks])
    }

    fn to_host(&self, x: &Vec<f32>) -> Result<Vec<f32>> {
        Ok(x.clone())
    }

    fn mount_linear(&self, _: LinearWeight, _: Option<Tensor>) -> Result<()> {
        unimplemented!()
    }
    fn mount_vector(&self, _: &Tensor, _: f32) -> Result<()> {
        unimplemented!()
    }
    fn from_host(&self, _: &[f32], _: usize) -> Result<Vec<f32>> {
        unimplemented!()
    }
    fn embed(&self, (): &(), _: &[TokenId]) -> Result<Vec<f32>> {
        unimplemented!()
    }
    fn linear(&self, _: &Vec<f32>, (): &()) -> Result<Vec<f32>> {
        unimplemented!()
    }
    fn rms_norm(&self, _: &Vec<f32>, (): &(), _: f32) -> Result<Vec<f32>> {
        unimplemented!()
    }
    fn rope(&self, _: &Vec<f32>, _: &Rope, _: &Batch) -> Result<Vec<f32>> {
        unimplemented!()
    }
    fn attention(
        &self,
        _: &Vec<f32>,
        _: &Vec<f32>,
        _: &Vec<f32>,
        _: &Batch,
        _: &mut Self::Kv,
        _: &Attention,
    ) -> Result<Vec<f32>> {
        unimplemented!()
    }
    fn add(&self, _: &Vec<f32>, _: &Vec<f32>) -> Result<Vec<f32>> {
        unimplemented!()
    }
    fn scale(&self, _: &Vec<f32>, _: f32) -> Result<Vec<f32>> {
        unimplemented!()
    }
    fn gate(&self, _: &Vec<f32>, _: &Vec<f32>, _: Activation) -> Result<Vec<f32>> {
        unimplemented!()
    }
    fn rows(&self, _: &Vec<f32>, _: &[usize]) -> Result<Vec<f32>> {
        unimplemented!()
    }
}

/// What the tests see of a model, and how they hold it up.
#[derive(Clone)]
pub(crate) struct Stage {
    /// Sequences of each step.
    pub(crate) steps: Arc<Mutex<Vec<usize>>>,
    /// How often the model was loaded.
    pub(crate) loads: Arc<AtomicUsize>,
    /// Loads after which loading fails.
    pub(crate) loads_allowed: usize,
    /// Each step takes one; none where steps are free.
    gate: Option<Arc<Mutex<Receiver<()>>>>,
}

impl Stage {
    pub(crate) fn open() -> Self {
        Self { steps: Arc::default(), loads: Arc::default(), loads_allowed: usize::MAX, gate: None }
    }

    /// Steps wait until the test lets them go.
    pub(crate) fn gated() -> (Self, Sender<()>) {
        let (sender, receiver) = channel();
        (Self { gate: Some(Arc::new(Mutex::new(receiver))), ..Self::open() }, sender)
    }

    pub(crate) fn factory(
        &self,
    ) -> impl Fn() -> std::result::Result<(FakeBackend, Box<dyn Model<FakeBackend>>), String> + use<> {
        let stage = self.clone();
        move || {
            if stage.loads.fetch_add(1, Ordering::SeqCst) >= stage.loads_allowed {
                return Err("no more".to_owned());
            }
            Ok((FakeBackend, Box::new(Reciter(stage.clone())) as Box<dyn Model<FakeBackend>>))
        }
    }

    pub(crate) fn most_shared(&self) -> usize {
        self.steps.lock().unwrap().iter().copied().max().unwrap_or(0)
    }
}

struct Reciter(Stage);

const BLOCK: usize = 4;

impl Model<FakeBackend> for Reciter {
    fn forward(
        &self,
        _: &FakeBackend,
        batch: &Batch,
        kv: &mut Vec<Option<TokenId>>,
    ) -> std::result::Result<Vec<f32>, mlxctl_models::Error> {
        if let Some(gate) = &self.0.gate {
            gate.lock().unwrap().recv().ok();
        }
        self.0.steps.lock().unwrap().push(batch.spans.len());
        assert!(!batch.tokens.contains(&BOOM), "boom");
        if batch.tokens.contains(&FAIL) {
            return Err(Error::OutOfMemory { what: "the test".to_owned() }.into());
        }
        let mut rows = Vec::new();
        for span in &batch.spans {
            let place = |at: usize| span.blocks[at / BLOCK].0 as usize * BLOCK + at % BLOCK;
            for (offset, token) in batch.tokens[span.start..span.start + span.length].iter().enumerate() {
                kv[place(span.position + offset)] = Some(*token);
            }
            for row in span.start..span.start + span.length {
                let position = span.position + row - span.start;
                let first = kv[place(0)].unwrap() as usize;
                let last = kv[place(position)].unwrap() as usize;
                assert_eq!(last, (first + position - 1) % 26 + 1, "the pool holds what was recited");
                // After the first letter come those that follow it in the alphabet; after 'z' comes the end.
                let next = if last == 26 { END as usize } else { last + 1 };
                rows.push(next);
            }
        }
        let mut logits = vec![0.0; batch.logits.len() * VOCABULARY];
        for (index, row) in batch.logits.iter().enumerate() {
            logits[index * VOCABULARY + rows[*row]] = 1.0;
        }
        Ok(logits)
    }

    fn kv_layout(&self) -> KvLayout {
        KvLayout { layers: vec![KvLayer { heads: 1, key_dim: 1, value_dim: 1 }], block_size: BLOCK }
    }

    fn vocabulary(&self) -> usize {
        VOCABULARY
    }

    fn max_context(&self) -> usize {
        64
    }

    fn details(&self) -> Details {
        Details {
            family: "fake",
            model_type: "fake".to_owned(),
            parameters: 0,
            weight_bytes: 0,
            hidden: 0,
            intermediate: 0,
            layers: 1,
            heads: 1,
            kv_heads: 1,
            head_dim: 1,
            vocabulary: VOCABULARY,
            context: 64,
            tied: false,
            weight_type: "F32".to_owned(),
        }
    }
}

fn tokenizer() -> Arc<Tokenizer> {
    let mut words: Vec<String> = vec!["\"<end>\":0".to_owned()];
    words.extend((1..=26_u8).map(|n| format!("\"{}\":{n}", char::from(b'a' + n - 1))));
    words.extend((27..32).map(|n| format!("\"<{n}>\":{n}")));
    let json = format!(
        r#"{{"version":"1.0","added_tokens":[],"decoder":{{"type":"Fuse"}},
            "model":{{"type":"WordLevel","vocab":{{{}}},"unk_token":"<end>"}}}}"#,
        words.join(",")
    );
    Arc::new(Tokenizer::from_json(json.as_bytes()).unwrap())
}

/// A greedy request that goes on from these tokens.
pub(crate) fn request(prompt: &[TokenId]) -> Request {
    stopping(prompt, &[])
}

/// The same with stop strings.
pub(crate) fn stopping(prompt: &[TokenId], stops: &[&str]) -> Request {
    Request {
        prompt: prompt.to_vec(),
        sampling: Sampling { temperature: 0.0, ..Sampling::default() },
        entropy: 0,
        max_tokens: None,
        eos: Arc::new(BTreeSet::from([END])),
        ignore_eos: false,
        text: TextStream::new(&tokenizer(), &StopStrings::new(stops.iter().copied()).unwrap()),
    }
}
