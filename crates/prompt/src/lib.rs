//! Tokenizer, chat template, streaming detokeniser and stop strings.
