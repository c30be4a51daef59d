//! Which module is quantised how, from config.json and the tensors that are there.

use bytes::Bytes;
use mlxctl_weights::{
    Checkpoint, Dtype, Layout, Mode, Quantization, QuantizationConfig, SafetensorsWriter, TensorSpec,
};
use serde_json::{Value, json};

type Named<'a> = (&'a str, Dtype, &'a [usize]);

/// A checkpoint of zeros.
fn checkpoint(tensors: &[Named<'_>]) -> Checkpoint {
    let specs = tensors.iter().map(|(name, dtype, shape)| TensorSpec {
        name: (*name).into(),
        dtype: *dtype,
        shape: shape.to_vec(),
    });
    let layout = Layout::new(specs.collect(), &[].into()).expect("the tensors are sound");
    let order = layout.tensors().to_vec();
    let mut writer = SafetensorsWriter::new(layout, Vec::new()).expect("memory takes all");
    for tensor in order {
        let zeros = vec![0; tensor.bytes().expect("small") as usize];
        writer.write(&tensor.name, &zeros).expect("in order");
    }
    let file = Bytes::from(writer.finish().expect("complete"));
    Checkpoint::from_files(vec![("w".to_owned(), file)]).expect("we read what we write")
}

/// `w` as 4 bits in groups of 64 for rows of 128, `plain` unquantised.
fn four_bits() -> Checkpoint {
    checkpoint(&[
        ("w.weight", Dtype::U32, &[3, 16]),
        ("w.scales", Dtype::BF16, &[3, 2]),
        ("w.biases", Dtype::BF16, &[3, 2]),
        ("plain.weight", Dtype::BF16, &[3, 128]),
    ])
}

fn config(block: Value) -> QuantizationConfig {
    QuantizationConfig::from_config(&json!({"quantization": block})).expect("the block is sound")
}

fn format(mode: Mode, bits: u32, group_size: u32) -> Quantization {
    Quantization::new(mode, bits, group_size).expect("the format exists")
}

#[test]
fn a_module_without_an_entry_is_quantised_where_it_has_scales_as_its_shapes_say() {
    let weights = four_bits();
    let default = config(json!({"group_size": 64, "bits": 4}));
    assert_eq!(default.for_module("w", 128, &weights).unwrap(), Some(format(Mode::Affine, 4, 64)));
    assert_eq!(default.for_module("plain", 128, &weights).unwrap(), None);
    assert_eq!(default.for_module("absent", 128, &weights).unwrap(), None);
    // As mlx-lm 0.32.2 does: the shapes decide where the block's default is that of other modules.
    let other = config(json!({"group_size": 32, "bits": 8, "mode": "mxfp8"}));
    assert_eq!(other.for_module("w", 128, &weights).unwrap(), Some(format(Mode::Affine, 4, 64)));
}

#[test]
fn shapes_tell_every_format() {
    for quantization in Quantization::every() {
        let columns = 256;
        let words = quantization.packed_columns(columns).unwrap();
        let groups = quantization.groups(columns).unwrap();
        let affine = quantization.mode().has_biases();
        let scales = if affine { Dtype::F16 } else { Dtype::U8 };
        let mut tensors: Vec<Named<'_>> = Vec::new();
        let (weight_shape, scales_shape) = ([2, 3, words], [2, 3, groups]);
        tensors.push(("m.weight", Dtype::U32, &weight_shape));
        tensors.push(("m.scales", scales, &scales_shape));
        if affine {
            tensors.push(("m.biases", scales, &scales_shape));
        }
        let found = config(json!({"group_size": 64, "bits": 4})).for_module("m", columns, &checkpoint(&tensors));
        assert_eq!(found.unwrap(), Some(quantization));
    }
    assert_eq!(Quantization::every().count(), 6 * 3 + 3);
}

#[test]
fn entries_of_modules_override_the_default() {
    let weights = four_bits();
    let own = config(json!({"group_size": 64, "bits": 8, "w": {"group_size": 64, "bits": 4, "mode": "affine"}}));
    assert_eq!(own.for_module("w", 128, &weights).unwrap(), Some(format(Mode::Affine, 4, 64)));
    // Fields an entry leaves out are MLX's defaults (64, 4), not the block's.
    let empty = config(json!({"group_size": 64, "bits": 8, "w": {}}));
    assert_eq!(empty.for_module("w", 128, &weights).unwrap(), Some(format(Mode::Affine, 4, 64)));
    let like_the_rest = config(json!({"group_size": 64, "bits": 4, "w": true}));
    assert_eq!(like_the_rest.for_module("w", 128, &weights).unwrap(), Some(format(Mode::Affine, 4, 64)));
    let excluded = config(json!({"group_size": 64, "bits": 4, "plain": false}));
    assert_eq!(excluded.for_module("plain", 128, &weights).unwrap(), None);
}

#[test]
fn what_config_and_weights_disagree_on_is_refused_naming_the_module() {
    let refusal = |block: Value, path: &str, columns: usize| {
        config(block).for_module(path, columns, &four_bits()).unwrap_err().to_string()
    };
    let four = json!({"group_size": 64, "bits": 4});
    let cases = [
        (json!({"bits": 4, "w": false}), "w", 128, "says it is not quantised, but the weights hold its scales"),
        (json!({"bits": 4, "plain": true}), "plain", 128, "hold no `plain.scales`"),
        (json!({"bits": 4, "w": {"bits": 8}}), "w", 128, "do not fit rows of 128 weights in affine 8 bits"),
        (json!({"bits": 4, "w": {"mode": "mxfp4"}}), "w", 128, "in mxfp4 4 bits in groups of 32"),
        (four.clone(), "w", 512, "weight [3, 16] and BF16 scales [3, 2] do not fit rows of 512 weights in any format"),
        (four.clone(), "w", 127, "rows of 127"),
        (four, "w", 0, "rows of 0"),
    ];
    for (block, path, columns, expected) in cases {
        let message = refusal(block, path, columns);
        assert!(message.contains(expected) && message.contains(&format!("module `{path}`")), "{message}");
    }
    let none = QuantizationConfig::from_config(&json!({})).unwrap();
    let message = none.for_module("w", 128, &four_bits()).unwrap_err().to_string();
    assert!(message.contains("config.json has no `quantization` block"), "{message}");
    assert_eq!(none.for_module("plain", 128, &four_bits()).unwrap(), None);
}

#[test]
fn tensors_that_do_not_fit_each_other_are_refused() {
    let packed: Named<'_> = ("m.weight", Dtype::U32, &[3, 16]);
    let scales: Named<'_> = ("m.scales", Dtype::F16, &[3, 2]);
    let cases: &[(&[Named<'_>], &str)] = &[
        (&[("m.weight", Dtype::I32, &[3, 16]), scales], "expected packed U32 words, found I32"),
        (&[packed, scales], "`m.biases` is in none"),
        (&[scales], "`m.weight` is in none"),
        (&[packed, scales, ("m.biases", Dtype::F16, &[3, 3])], "expected shape [3, 2], found [3, 3]"),
        (&[packed, scales, ("m.biases", Dtype::F32, &[3, 2])], "expected the type of the scales, found F32"),
        (&[packed, ("m.scales", Dtype::F16, &[2, 2])], "do not fit"),
        (&[packed, ("m.scales", Dtype::I16, &[3, 2])], "expected F32, F16 or BF16, found I16"),
        (&[("m.weight", Dtype::U32, &[]), ("m.scales", Dtype::F16, &[])], "at least one dimension"),
        (&[packed, ("m.scales", Dtype::U8, &[3, 4]), ("m.biases", Dtype::F16, &[3, 4])], "mxfp4 has no biases"),
        (&[packed, scales, ("m.global_scale", Dtype::F32, &[])], "global scale"),
    ];
    for (tensors, expected) in cases {
        let error = config(json!({"bits": 4})).for_module("m", 128, &checkpoint(tensors)).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}\n  not: {expected}");
    }
}

#[test]
fn blocks_are_read_from_either_key_and_refused_where_they_make_no_sense() {
    let four = json!({"group_size": 64, "bits": 4, "mode": "affine"});
    let read = |config: &Value| QuantizationConfig::from_config(config);
    for config in [json!({"quantization": four}), json!({"quantization": null, "quantization_config": four})] {
        assert_eq!(read(&config).unwrap().default_format(), Some(format(Mode::Affine, 4, 64)));
    }
    let both = json!({"quantization": four, "quantization_config": {"quant_method": "gptq"}});
    assert_eq!(read(&both).unwrap().default_format(), Some(format(Mode::Affine, 4, 64)));
    assert_eq!(
        read(&json!({"quantization_config": {"quant_method": "mxfp4", "modules_to_not_convert": ["a"]}}))
            .unwrap()
            .default_format(),
        Some(format(Mode::Mxfp4, 4, 32))
    );
    for (config, expected) in [
        (json!({"quantization": 4}), "quantization: expected an object, found 4"),
        (json!({"quantization": {"bits": "4"}}), "quantization.bits: expected a small whole number, found \"4\""),
        (json!({"quantization": {"bits": 7}}), "no quantisation of mode affine with 7 bits and groups of 64"),
        (json!({"quantization": {"mode": "int3"}}), "quantization.mode: expected affine, mxfp4, mxfp8 or nvfp4"),
        (json!({"quantization": {"bits": 4, "lm_head": {"group_size": 48}}}), "quantization.lm_head: no quantisation"),
        (json!({"quantization_config": {"quant_method": "gptq", "bits": 4}}), "found \"gptq\"; convert the model"),
    ] {
        let message = read(&config).unwrap_err().to_string();
        assert!(message.contains(expected), "{message}\n  not: {expected}");
    }
}

#[test]
fn what_is_written_to_a_config_is_read_back() {
    let mut block = QuantizationConfig::new(format(Mode::Affine, 4, 64));
    block.set_module("lm_head", Some(format(Mode::Affine, 8, 64)));
    block.set_module("gate", None);
    let json = block.to_json().unwrap();
    assert_eq!(
        json,
        json!({
            "group_size": 64, "bits": 4, "mode": "affine",
            "gate": false, "lm_head": {"group_size": 64, "bits": 8, "mode": "affine"},
        })
    );
    assert_eq!(QuantizationConfig::from_config(&json!({"quantization": json})).unwrap(), block);
    assert!(QuantizationConfig::default().to_json().is_none());
}
