//! A short run of the fuzzer's targets: their seeds, and the same mutations of them every time.

#[path = "../../fuzz/targets.rs"]
mod targets;

use std::path::Path;

/// Mutants of each seed.
const MUTANTS: u64 = 400;

/// xorshift64*, so that a find can be made again.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit.max(1) as u64) as usize
    }
}

/// One to four changes: a bit, a byte, a number at its limits, a piece doubled, cut out or taken from another seed.
fn mutant(seed: &[u8], other: &[u8], random: &mut Random) -> Vec<u8> {
    let mut bytes = seed.to_vec();
    for _ in 0..=random.below(4) {
        let at = random.below(bytes.len());
        let end = (at + 1 + random.below(16)).min(bytes.len());
        match random.below(7) {
            0 if at < bytes.len() => bytes[at] ^= 1 << random.below(8),
            1 if at < bytes.len() => bytes[at] = random.next() as u8,
            2 => {
                let number = [u64::MAX, 1 << 63, u64::from(u32::MAX), 0, 1 << 40][random.below(5)];
                let length = bytes.len().min(at + 8) - at;
                bytes[at..at + length].copy_from_slice(&number.to_le_bytes()[..length]);
            }
            3 => {
                let piece = bytes[at..end].to_vec();
                bytes.splice(at..at, piece);
            }
            4 => drop(bytes.splice(at..end, [])),
            5 => bytes.truncate(at),
            _ => {
                let from = random.below(other.len());
                let piece = &other[from..other.len().min(from + 32)];
                bytes.splice(at..at, piece.iter().copied());
            }
        }
    }
    bytes
}

#[test]
fn no_foreign_bytes_make_a_parser_panic() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus");
    for (name, target) in targets::TARGETS {
        let entries = std::fs::read_dir(corpus.join(name)).unwrap_or_else(|error| panic!("seeds of {name}: {error}"));
        let mut paths: Vec<_> = entries.map(|entry| entry.expect("the folder can be read").path()).collect();
        paths.sort();
        let seeds: Vec<Vec<u8>> = paths.iter().map(|path| std::fs::read(path).expect("a seed can be read")).collect();
        assert!(!seeds.is_empty(), "{name} has no seeds");
        let mut random = Random(0x9E37_79B9_7F4A_7C15);
        for seed in &seeds {
            target(seed);
            for _ in 0..MUTANTS {
                let other = &seeds[random.below(seeds.len())];
                target(&mutant(seed, other, &mut random));
            }
        }
    }
}
