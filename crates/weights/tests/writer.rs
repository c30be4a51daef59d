//! Files we write: deterministic, aligned, without holes, and read back alike by ourselves and by the reference.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use mlxctl_weights::{Dtype, Layout, SafetensorsWriter, TensorSpec, plan_shards, read_safetensors};
use proptest::prelude::*;

fn spec(name: &str, dtype: Dtype, shape: &[usize]) -> TensorSpec {
    TensorSpec { name: name.to_owned(), dtype, shape: shape.to_vec() }
}

fn mlx() -> BTreeMap<String, String> {
    BTreeMap::from([("format".to_owned(), "mlx".to_owned())])
}

/// Bytes that tell tensors apart.
fn content(spec: &TensorSpec) -> Vec<u8> {
    let seed = spec.name.bytes().fold(7_u8, |a, b| a.wrapping_mul(31).wrapping_add(b));
    (0..spec.bytes().expect("small")).map(|index| seed.wrapping_add(index as u8)).collect()
}

fn written(tensors: Vec<TensorSpec>) -> Vec<u8> {
    let layout = Layout::new(tensors, &mlx()).expect("the tensors are sound");
    let (order, bytes) = (layout.tensors().to_vec(), layout.file_bytes());
    let mut writer = SafetensorsWriter::new(layout, Vec::new()).expect("memory takes all");
    for tensor in &order {
        for piece in content(tensor).chunks(7) {
            writer.write(&tensor.name, piece).expect("in order");
        }
    }
    let file = writer.finish().expect("complete");
    assert_eq!(file.len() as u64, bytes);
    file
}

#[test]
fn whole_lines_come_first_then_descending_alignment_then_names() {
    let tensors = vec![
        spec("z", Dtype::U8, &[64]),
        spec("byte", Dtype::U8, &[3]),
        spec("half", Dtype::BF16, &[5]),
        spec("b", Dtype::F32, &[3]),
        spec("a", Dtype::F32, &[1]),
        spec("m", Dtype::BF16, &[64, 3]),
        spec("long", Dtype::I64, &[1]),
    ];
    let layout = Layout::new(tensors, &mlx()).unwrap();
    let order: Vec<&str> = layout.tensors().iter().map(|tensor| tensor.name.as_str()).collect();
    assert_eq!(order, ["m", "z", "long", "a", "b", "half", "byte"]);
}

#[test]
fn a_modules_weight_comes_before_what_is_made_with_it() {
    let names = ["b.scales", "a.scales", "b.weight", "a.biases", "a.weight", "b.biases", "weight"];
    let tensors = names.iter().map(|name| spec(name, Dtype::U8, &[64])).collect();
    let layout = Layout::new(tensors, &mlx()).unwrap();
    let order: Vec<&str> = layout.tensors().iter().map(|tensor| tensor.name.as_str()).collect();
    assert_eq!(order, ["a.weight", "a.biases", "a.scales", "b.weight", "b.biases", "b.scales", "weight"]);
}

#[test]
fn the_file_is_these_bytes() {
    let file = written(vec![spec("w", Dtype::U8, &[2, 1])]);
    let header = r#"{"__metadata__":{"format":"mlx"},"w":{"dtype":"U8","shape":[2,1],"data_offsets":[0,2]}}"#;
    let padding = " ".repeat(128 - 8 - header.len());
    let expected =
        [&120_u64.to_le_bytes()[..], header.as_bytes(), padding.as_bytes(), &content(&spec("w", Dtype::U8, &[2, 1]))];
    assert_eq!(file, expected.concat());
}

#[test]
fn writing_out_of_order_short_long_or_twice_is_refused() {
    let layout = || Layout::new(vec![spec("a", Dtype::U8, &[2]), spec("b", Dtype::U8, &[2])], &mlx()).unwrap();
    let writer = || SafetensorsWriter::new(layout(), Vec::new()).unwrap();
    let message = writer().write("b", &[1, 2]).unwrap_err().to_string();
    assert!(message.contains("expected tensor `a` before it, found b"), "{message}");
    let message = writer().write("a", &[1, 2, 3]).unwrap_err().to_string();
    assert!(message.contains("at most 2 more bytes, found 3"), "{message}");
    let mut short = writer();
    short.write("a", &[1]).unwrap();
    let message = short.write("b", &[1]).unwrap_err().to_string();
    assert!(message.contains("tensor `a`: expected 1 more bytes"), "{message}");
    let mut short = writer();
    short.write("a", &[1, 2]).unwrap();
    let message = short.finish().unwrap_err().to_string();
    assert!(message.contains("tensor `b`: expected its 2 bytes"), "{message}");
    let mut long = writer();
    long.write("a", &[1, 2]).unwrap();
    long.write("b", &[1, 2]).unwrap();
    assert!(long.write("a", &[1, 2]).unwrap_err().to_string().contains("no further tensor"));
}

#[test]
fn layouts_no_reader_would_accept_are_refused() {
    let message = |tensors| Layout::new(tensors, &mlx()).unwrap_err().to_string();
    assert!(message(vec![spec("a", Dtype::U8, &[1]), spec("a", Dtype::U8, &[1])]).contains("each name once"));
    assert!(message(vec![spec("__metadata__", Dtype::U8, &[1])]).contains("does not reserve"));
    assert!(message(vec![spec("a", Dtype::F32, &[1 << 40, 1 << 40])]).contains("64 bits"));
    assert!(message(vec![spec("a", Dtype::U8, &[1 << 63]), spec("b", Dtype::U8, &[1 << 63])]).contains("64 bits"));
    assert!(message(vec![spec("a", Dtype::U8, &[1; 33])]).contains("32 dimensions"));
}

#[test]
fn shards_keep_modules_together_and_name_every_tensor_once() {
    let mut tensors = vec![spec("norm", Dtype::F32, &[4])];
    for layer in 0..4 {
        for (part, shape) in [("weight", 60), ("scales", 2), ("biases", 2), ("inner.weight", 1)] {
            tensors.push(spec(&format!("layers.{layer}.{part}"), Dtype::U8, &[shape]));
        }
    }
    let plan = plan_shards(tensors.clone(), 150).unwrap();
    let names: Vec<&str> = plan.shards.iter().map(|shard| shard.file_name.as_str()).collect();
    assert_eq!(names, ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]);
    assert_eq!(plan.total_bytes, 16 + 4 * 65);
    for shard in &plan.shards {
        let held: BTreeSet<&str> = shard.tensors.iter().map(|tensor| tensor.name.as_str()).collect();
        for layer in 0..4 {
            let parts =
                ["weight", "scales", "biases"].map(|part| held.contains(format!("layers.{layer}.{part}").as_str()));
            assert!(parts == [true; 3] || parts == [false; 3], "{held:?}");
        }
    }
    let index = plan.index().unwrap();
    assert_eq!(index["metadata"]["total_size"], 276);
    assert_eq!(index["weight_map"].as_object().unwrap().len(), tensors.len());
    assert_eq!(index["weight_map"]["layers.0.weight"], "model-00001-of-00002.safetensors");
    assert_eq!(index["weight_map"]["norm"], "model-00002-of-00002.safetensors");

    tensors.reverse();
    assert_eq!(plan_shards(tensors.clone(), 150).unwrap(), plan, "the order given does not matter");
    let single = plan_shards(tensors, u64::MAX).unwrap();
    assert_eq!((single.shards.len(), single.shards[0].file_name.as_str()), (1, "model.safetensors"));
    assert!(single.index().is_none());
    assert_eq!(plan_shards(Vec::new(), 10).unwrap().shards.len(), 1);
}

#[test]
fn a_tensor_larger_than_a_shard_gets_its_own() {
    let sizes = |tensors: Vec<TensorSpec>| -> Vec<Vec<u64>> {
        let plan = plan_shards(tensors, 10).unwrap();
        plan.shards.iter().map(|shard| shard.tensors.iter().map(|tensor| tensor.bytes().unwrap()).collect()).collect()
    };
    let large = spec("m.b", Dtype::U8, &[30]);
    assert_eq!(sizes(vec![large.clone()]), [[30]]);
    assert_eq!(
        sizes(vec![large, spec("m.a", Dtype::U8, &[4]), spec("n", Dtype::U8, &[5])]),
        [vec![4], vec![30], vec![5]]
    );
    assert_eq!(
        sizes(vec![spec("n", Dtype::U8, &[5]), spec("o", Dtype::U8, &[5]), spec("p", Dtype::U8, &[1])]),
        [vec![5, 5], vec![1]]
    );
}

fn specs() -> impl Strategy<Value = Vec<TensorSpec>> {
    let shape = proptest::collection::vec(prop_oneof![0..5_usize, Just(8), Just(64)], 0..3);
    let dtype = proptest::sample::select(&Dtype::ALL[..]);
    proptest::collection::btree_map("[a-z.\"\\\\é\u{1F980}]{1,8}", (dtype, shape), 0..12)
        .prop_map(|tensors| tensors.into_iter().map(|(name, (dtype, shape))| spec(&name, dtype, &shape)).collect())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn what_is_written_is_read_back_aligned_by_us_and_by_the_reference(tensors in specs()) {
        let file = Bytes::from(written(tensors.clone()));
        let mut reversed = tensors.clone();
        reversed.reverse();
        prop_assert_eq!(&written(reversed), &file[..], "the order given does not matter");
        let read = read_safetensors(&file, "x").expect("we read what we write");
        let reference = safetensors::SafeTensors::deserialize(&file).expect("so does the reference");
        prop_assert_eq!(read.header_bytes % 64, 0);
        prop_assert_eq!(&read.metadata, &mlx());
        prop_assert_eq!((read.tensors.len(), reference.len()), (tensors.len(), tensors.len()));
        for spec in &tensors {
            let tensor = &read.tensors[&spec.name];
            prop_assert_eq!((tensor.dtype, &tensor.shape), (spec.dtype, &spec.shape));
            prop_assert_eq!(&tensor.data[..], &content(spec)[..]);
            prop_assert_eq!(reference.tensor(&spec.name).expect("there").data(), &content(spec)[..]);
            if !tensor.data.is_empty() {
                let offset = tensor.data.as_ptr() as usize - file.as_ptr() as usize;
                let whole_lines = tensor.data.len().is_multiple_of(64);
                prop_assert_eq!(offset % if whole_lines { 64 } else { spec.dtype.alignment() }, 0);
            }
        }
    }
}
