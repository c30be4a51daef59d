//! What one step computes: which tokens, of which sequences, and where their keys and values are kept.

/// A token of a model's vocabulary.
pub type TokenId = u32;

/// A block of the KV pool: room for [`KvLayout::block_size`] consecutive tokens of one sequence, in every layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BlockId(pub u32);

/// One sequence's part of a step: `length` new tokens that follow `position` tokens already stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Span {
    /// The first row of the batch that belongs to the sequence.
    pub start: usize,
    /// How many rows belong to it.
    pub length: usize,
    /// Tokens of the sequence whose keys and values the pool already holds: the position of the first new token.
    pub position: usize,
    /// The sequence's blocks in order; they have room for `position + length` tokens.
    pub blocks: Vec<BlockId>,
}

/// A ragged batch: prefill chunks and decodes in one pass.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Batch {
    /// The new tokens of all sequences, one sequence after the other.
    pub tokens: Vec<TokenId>,
    /// The sequences, in the order of their rows; their rows cover `tokens` exactly.
    pub spans: Vec<Span>,
    /// The rows whose logits are wanted, ascending: the head computes no others.
    pub logits: Vec<usize>,
}

impl Batch {
    /// Appends a sequence's new tokens; with `logits_of_last` the logits of its last token are wanted.
    pub fn push(&mut self, tokens: &[TokenId], position: usize, blocks: &[BlockId], logits_of_last: bool) {
        let start = self.tokens.len();
        self.tokens.extend_from_slice(tokens);
        self.spans.push(Span { start, length: tokens.len(), position, blocks: blocks.to_vec() });
        if logits_of_last && !tokens.is_empty() {
            self.logits.push(self.tokens.len() - 1);
        }
    }

    /// Whether the batch is whole for a pool of `blocks` blocks of `block_size` tokens: rows covered once and in
    /// order, logits wanted of rows that exist, every token with a place in a block that exists. The error says what is amiss.
    pub fn check(&self, block_size: usize, blocks: usize) -> Result<(), String> {
        let mut rows = 0_usize;
        for (index, span) in self.spans.iter().enumerate() {
            let end = span.position.checked_add(span.length);
            if span.start != rows {
                return Err(format!("span {index} starts at row {}, expected row {rows}", span.start));
            }
            rows = rows.saturating_add(span.length);
            let room = span.blocks.len().saturating_mul(block_size);
            if end.is_none_or(|end| end > room) {
                return Err(format!(
                    "span {index} has {} tokens after {} others, its {} blocks have room for {room}",
                    span.length,
                    span.position,
                    span.blocks.len()
                ));
            }
            if let Some(block) = span.blocks.iter().find(|block| block.0 as usize >= blocks) {
                return Err(format!("span {index} names block {}, the pool has {blocks}", block.0));
            }
        }
        if rows != self.tokens.len() {
            return Err(format!("the spans cover {rows} rows of {}", self.tokens.len()));
        }
        if let Some(row) = self.logits.iter().find(|&&row| row >= rows) {
            return Err(format!("logits are wanted of row {row} of {rows}"));
        }
        match self.logits.windows(2).find(|pair| pair[0] >= pair[1]) {
            Some(pair) => {
                Err(format!("logits are wanted of row {} before row {}, expected ascending rows", pair[0], pair[1]))
            }
            None => Ok(()),
        }
    }

    /// The position in its sequence of every row.
    pub fn positions(&self) -> impl Iterator<Item = usize> {
        self.spans.iter().flat_map(|span| span.position..span.position + span.length)
    }
}

/// What one layer keeps of a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KvLayer {
    /// Key and value heads.
    pub heads: usize,
    /// Features of a key head.
    pub key_dim: usize,
    /// Features of a value head.
    pub value_dim: usize,
}

/// What the pool keeps of a token, layer by layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KvLayout {
    /// One entry a layer that attends.
    pub layers: Vec<KvLayer>,
    /// Tokens a block has room for.
    pub block_size: usize,
}

impl KvLayout {
    /// Numbers kept for one token, over all layers.
    pub fn features(&self) -> usize {
        self.layers.iter().map(|layer| layer.heads * (layer.key_dim + layer.value_dim)).sum()
    }

    /// Blocks that `tokens` tokens of one sequence need.
    pub fn blocks_for(&self, tokens: usize) -> usize {
        tokens.div_ceil(self.block_size)
    }
}
