//! Files of strangers: what is legal is read without a copy, what is not is refused by name and place, and nothing
//! panics.

use bytes::Bytes;
use mlxctl_weights::{Checkpoint, Dtype, Error, read_safetensors};
use proptest::prelude::*;

/// A file with this header text, followed by `data` bytes 0, 1, 2, ….
fn file(header: &str, data: usize) -> Bytes {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend_from_slice(header.as_bytes());
    bytes.extend((0..data).map(|index| index as u8));
    Bytes::from(bytes)
}

fn refusal(file: &Bytes) -> String {
    read_safetensors(file, "x.safetensors").expect_err("the file is broken").to_string()
}

#[test]
fn tensors_borrow_the_bytes_of_the_file_at_any_alignment() {
    // The three bytes of `a` leave what follows misaligned, wherever the buffer lies.
    let header = r#"{"__metadata__":{"format":"mlx"},"b":{"dtype":"F32","shape":[2,1],"data_offsets":[3,11]},"a":{"dtype":"U8","shape":[3],"data_offsets":[0,3]},"s":{"dtype":"BF16","shape":[],"data_offsets":[11,13]},"none":{"dtype":"F64","shape":[0,4],"data_offsets":[3,3]}}"#;
    let file = file(header, 13);
    let read = read_safetensors(&file, "x").unwrap();
    assert_eq!(read.metadata["format"], "mlx");
    assert_eq!(read.header_bytes, 8 + header.len() as u64);
    let b = &read.tensors["b"];
    assert_eq!((b.dtype, b.shape.as_slice(), b.elements()), (Dtype::F32, [2, 1].as_slice(), 2));
    assert_eq!(b.data, [3, 4, 5, 6, 7, 8, 9, 10][..]);
    assert_eq!(b.data.as_ptr(), file[8 + header.len() + 3..].as_ptr(), "borrowed");
    assert_eq!(read.tensors["s"].rows_and_columns(), (1, 1));
    assert_eq!(read.tensors["none"].elements(), 0);
    assert!(read.tensors.values().any(|tensor| !tensor.is_aligned()));
}

#[test]
fn trailing_spaces_unknown_fields_and_mlxs_null_metadata_are_legal() {
    let header = r#"{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"__metadata__":null}"#;
    assert!(read_safetensors(&file(header, 1), "x").unwrap().metadata.is_empty());
    let header = r#"{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1],"note":[[[{}]]]}}     "#;
    assert_eq!(read_safetensors(&file(header, 1), "x").unwrap().tensors.len(), 1);
    assert_eq!(read_safetensors(&file("{}", 0), "x").unwrap().tensors.len(), 0);
}

#[test]
fn broken_files_are_refused_naming_file_tensor_and_bytes() {
    let one = |entry: &str| format!(r#"{{"w":{entry}}}"#);
    let u8s = |n: u64, b: u64, e: u64| format!(r#"{{"dtype":"U8","shape":[{n}],"data_offsets":[{b},{e}]}}"#);
    let many_dimensions = format!(r#"{{"dtype":"U8","shape":[{}1],"data_offsets":[0,1]}}"#, "1,".repeat(32));
    let cases: Vec<(String, usize, &[&str])> = vec![
        ("[]".into(), 0, &["starts with `{`", "bytes 8..10"]),
        (" {}".into(), 0, &["starts with `{`"]),
        ("{}{}".into(), 0, &["not a JSON object", "trailing characters"]),
        (one("1"), 0, &["tensor `w`", "expected {dtype, shape, data_offsets}", "bytes 13..14"]),
        (one(r#"{"dtype":"U8","shape":[1]}"#), 1, &["tensor `w`", "missing field `data_offsets`"]),
        (one(r#"{"dtype":"F4","shape":[1],"data_offsets":[0,1]}"#), 1, &["tensor `w`", "`F4` is not supported"]),
        (one(r#"{"dtype":"U8","dtype":"I8","shape":[1],"data_offsets":[0,1]}"#), 1, &["duplicate field `dtype`"]),
        (one(r#"{"dtype":"U8","shape":[-1],"data_offsets":[0,1]}"#), 1, &["tensor `w`", "invalid value"]),
        (one(r#"{"dtype":"U8","shape":[1.5],"data_offsets":[0,1]}"#), 1, &["tensor `w`", "floating point"]),
        (one(r#"{"dtype":"U8","shape":[1],"data_offsets":[0,1,2]}"#), 1, &["tensor `w`", "trailing"]),
        (one(&many_dimensions), 1, &["tensor `w`", "at most 32 dimensions"]),
        (
            one(r#"{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,0]}"#),
            0,
            &["more bytes than 64 bits can count"],
        ),
        (one(&u8s(1, 2, 1)), 2, &["[2, 1] end before they begin"]),
        (one(&u8s(2, u64::MAX - 2, u64::MAX)), 2, &["beyond any file"]),
        (one(&u8s(5, 0, 4)), 4, &["tensor `w`", "U8 of shape [5] takes 5 bytes, the header gives it 4"]),
        (one(&u8s(5, 0, 5)), 4, &["tensor `w`", "ends behind the file", "truncated"]),
        (one(&u8s(1 << 60, 0, 1 << 60)), 4, &["ends behind the file"]),
        (one(&u8s(4, 1, 5)), 5, &["belong to no tensor", "bytes 61..62"]),
        (one(&u8s(4, 0, 4)), 6, &["belong to no tensor", "bytes 65..67"]),
        ("{}".into(), 3, &["bytes 10..13", "belong to no tensor"]),
        (format!(r#"{{"w":{},"v":{}}}"#, u8s(4, 0, 4), u8s(4, 3, 7)), 7, &["tensor `v`", "overlaps `w`"]),
        (format!(r#"{{"w":{},"v":{}}}"#, u8s(4, 0, 4), u8s(4, 0, 4)), 4, &["tensor `w`", "overlaps `v`"]),
        (format!(r#"{{"w":{},"w":{}}}"#, u8s(4, 0, 4), u8s(4, 4, 8)), 8, &["tensor `w`", "names this tensor twice"]),
        (format!(r#"{{"w":{},"\u0077":{}}}"#, u8s(4, 0, 4), u8s(4, 4, 8)), 8, &["names this tensor twice"]),
        (r#"{"__metadata__":{"a":1}}"#.into(), 0, &["`__metadata__`", "not an object of strings"]),
        (r#"{"__metadata__":{"a":"1","a":"2"}}"#.into(), 0, &["`__metadata__`", "twice"]),
        (r#"{"__metadata__":{},"__metadata__":{}}"#.into(), 0, &["`__metadata__`", "twice"]),
        (r#"{"__metadata__":null,"__metadata__":{}}"#.into(), 0, &["`__metadata__`", "twice"]),
    ];
    for (header, data, expected) in cases {
        let message = refusal(&file(&header, data));
        for part in expected.iter().chain(&["x.safetensors", "bytes "]) {
            assert!(message.contains(part), "{header}\n  says: {message}\n  not:  {part}");
        }
    }
}

#[test]
fn lengths_are_checked_before_anything_is_read_or_allocated() {
    let claims = |length: u64| Bytes::from([length.to_le_bytes().as_slice(), b"{}"].concat());
    assert!(matches!(
        read_safetensors(&claims(1 << 60), "x"),
        Err(Error::HeaderTooLarge { claimed: 1_152_921_504_606_846_976, .. })
    ));
    assert!(matches!(read_safetensors(&claims(u64::MAX), "x"), Err(Error::HeaderTooLarge { .. })));
    assert!(matches!(
        read_safetensors(&claims(100_000_000), "x"),
        Err(Error::Truncated { needed: 100_000_008, found: 10, .. })
    ));
    assert!(matches!(read_safetensors(&claims(100_000_001), "x"), Err(Error::HeaderTooLarge { .. })));
    assert!(refusal(&Bytes::from_static(b"1234567")).contains("the header length needs 8 bytes, the file has 7"));
    assert!(refusal(&Bytes::new()).contains("truncated"));
}

#[test]
fn more_entries_than_any_model_has_are_refused_before_they_are_kept() {
    let header = format!("{{{}\"\":1}}", "\"\":1,".repeat(1 << 20));
    assert!(refusal(&file(&header, 0)).contains("more than 1048576 entries"));
}

#[test]
fn headers_that_are_deep_or_not_text_are_refused() {
    let deep = format!(r#"{{"w":{}1{}}}"#, "[".repeat(200_000), "]".repeat(200_000));
    assert!(refusal(&file(&deep, 0)).contains("tensor `w`"));
    let mut bytes = file(r#"{"wxyz":1}"#, 0).to_vec();
    bytes[11] = 0xFF;
    assert!(refusal(&Bytes::from(bytes)).contains("(bytes 11..18): the header is not UTF-8"));
}

#[test]
fn long_and_strange_names_are_cut_and_escaped_in_messages() {
    let name = format!("\\u001b[31m{}", "n".repeat(10_000));
    let message = refusal(&file(&format!(r#"{{"{name}":1}}"#), 0));
    assert!(message.len() < 500 && !message.contains('\u{1b}'), "{message}");
}

#[test]
fn a_checkpoint_gathers_shards_and_refuses_a_name_in_two_of_them() {
    let shard = |name: &str, bytes: usize| {
        let header = format!(r#"{{"{name}":{{"dtype":"U8","shape":[{bytes}],"data_offsets":[0,{bytes}]}}}}"#);
        file(&header, bytes)
    };
    let files = vec![("one".to_owned(), shard("layers.0.w", 2)), ("two".to_owned(), shard("layers.1.w", 3))];
    let checkpoint = Checkpoint::from_files(files).unwrap();
    assert_eq!(checkpoint.names().collect::<Vec<_>>(), ["layers.0.w", "layers.1.w"]);
    assert_eq!((checkpoint.len(), checkpoint.total_bytes()), (2, 5));
    assert_eq!(checkpoint.require("layers.1.w", &[3]).unwrap().data, [0, 1, 2][..]);
    let message = checkpoint.require("layers.1.w", &[4]).unwrap_err().to_string();
    assert!(message.contains("two: tensor `layers.1.w`") && message.contains("expected shape [4], found [3]"));
    let start = 8 + r#"{"layers.1.w":{"dtype":"U8","shape":[3],"data_offsets":[0,3]}}"#.len();
    assert!(message.contains(&format!("bytes {start}..{}", start + 3)), "{message}");
    let message = checkpoint.require("model.layers.1.w", &[3]).unwrap_err().to_string();
    assert!(message.contains("`model.layers.1.w` is in none of the 2") && message.contains("near: `layers.1.w`"));
    let message = checkpoint.require_float("layers.1.w", &[3]).unwrap_err().to_string();
    assert!(message.contains("expected F32, F16 or BF16, found U8"), "{message}");

    let twice = vec![("one".to_owned(), shard("w", 2)), ("two".to_owned(), shard("w", 3))];
    let message = Checkpoint::from_files(twice).unwrap_err().to_string();
    assert!(message.contains("tensor `w` is in both one and two"), "{message}");
}

/// Three tensors and metadata, for mutation.
fn valid() -> Vec<u8> {
    let header = r#"{"__metadata__":{"format":"mlx"},"a.w":{"dtype":"F16","shape":[2,3],"data_offsets":[0,12]},"b":{"dtype":"U32","shape":[2],"data_offsets":[12,20]},"c":{"dtype":"BOOL","shape":[1],"data_offsets":[20,21]}}"#;
    file(header, 21).to_vec()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn mutated_files_never_panic_and_are_read_as_the_reference_reads_them(
        mutations in proptest::collection::vec((0..400_usize, prop_oneof![any::<u8>(), Just(b'"'), Just(b'0'), Just(b'9'), Just(b',')]), 1..4),
        cut in prop_oneof![9 => Just(0_usize), 1 => 0..300_usize],
    ) {
        let mut bytes = valid();
        for (at, value) in mutations {
            let length = bytes.len();
            bytes[at % length] = value;
        }
        bytes.truncate(bytes.len() - cut.min(bytes.len()));
        let bytes = Bytes::from(bytes);
        let reference = safetensors::SafeTensors::deserialize(&bytes);
        match read_safetensors(&bytes, "x") {
            Ok(read) => {
                let reference = reference.expect("what we accept the reference accepts");
                prop_assert_eq!(reference.len(), read.tensors.len());
                for (name, tensor) in &read.tensors {
                    let view = reference.tensor(name).expect("the same names");
                    prop_assert_eq!(view.data(), &tensor.data[..]);
                    prop_assert_eq!(view.shape(), &tensor.shape[..]);
                    prop_assert_eq!(view.dtype().to_string(), tensor.dtype.name());
                }
            }
            Err(error) => {
                // What we alone refuse: names given twice, types MLX does not compute with, a leading space.
                let message = error.to_string();
                let stricter = ["twice", "not supported", "starts with"].iter().any(|part| message.contains(part));
                prop_assert!(reference.is_err() || stricter, "refused alone: {}", message);
            }
        }
    }

    #[test]
    fn random_headers_never_panic(header in "[\\[\\]{}\":,a-z0-9_ .-]{0,80}", data in 0..40_usize) {
        let _ = read_safetensors(&file(&header, data), "x");
        let _ = read_safetensors(&file(&format!(r#"{{"w":{{"dtype":"U8","shape":[{header}],"data_offsets":[0,1]}}}}"#), data), "x");
    }
}
