//! Compares values of 8 and 16 bits with those of torch.

use super::*;

#[test]
fn eight_bit_weights_have_the_values_of_torch() {
    let copy = tempfile::tempdir().unwrap();
    std::fs::create_dir(copy.path().join("part")).unwrap();
    std::fs::copy(folder().join("formats.safetensors"), copy.path().join("part/model.safetensors")).unwrap();
    let weights = Weights::open(&ModelFiles::Folder(copy.path().into()), "part", "model").unwrap();
    for (name, count) in [("f8_e4m3", 254), ("f8_e5m2", 248)] {
        let expected = weights.root().tensor(&format!("{name}.values"), &[count]).unwrap();
        assert_close(&weights.root().tensor(name, &[count]).unwrap(), &expected, 0.0);
    }
}

#[test]
fn sixteen_bit_weights_are_converted_exactly() {
    for dtype in ["bf16", "f16"] {
        let copy = tempfile::tempdir().unwrap();
        let target = copy.path().join("text_encoder");
        std::fs::create_dir(&target).unwrap();
        let source = folder().join(format!("text_encoder.{dtype}.safetensors"));
        std::fs::copy(&source, target.join("model.safetensors")).unwrap();
        let weights = Weights::open(&ModelFiles::Folder(copy.path().into()), "text_encoder", "model").unwrap();
        for (name, expected) in Golden::open(&format!("text_encoder.{dtype}")).0 {
            assert_close(&weights.root().tensor(&name, expected.shape()).unwrap(), &expected, 0.0);
        }
    }
}
