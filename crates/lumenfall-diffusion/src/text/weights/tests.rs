use std::path::Path;

use serde::Deserialize;

use super::*;

/// The parts that the code of the other programs returns, written by `tools/prompts_golden.py`. Some prompts are errors there.
#[derive(Deserialize)]
struct Expected {
    prompt: String,
    comfyui: Option<Vec<(String, f32)>>,
    a1111: Option<Vec<(String, f32)>>,
}

/// Returns the parts that contain text.
fn parse(weights: PromptWeights, prompt: &str) -> Vec<(String, f32)> {
    let parts = weights.parse(prompt).into_iter().flat_map(|Segment { text, weight, starts_chunk }| {
        starts_chunk.then(|| ("BREAK".to_owned(), -1.0)).into_iter().chain([(text, weight)])
    });
    parts.filter(|(text, _)| !text.is_empty()).collect()
}

#[test]
fn weights_equal_those_of_comfyui_and_a1111() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/prompt-weights.json");
    let expected: Vec<Expected> = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    assert!(expected.len() > 200);
    for Expected { prompt, comfyui, a1111 } in expected {
        for (weights, expected) in [(PromptWeights::ComfyUi, comfyui), (PromptWeights::A1111, a1111)] {
            let Some(expected) = expected else { continue };
            let expected: Vec<_> = expected.into_iter().filter(|(text, _)| !text.is_empty()).collect();
            assert_eq!(parse(weights, &prompt), expected, "{prompt:?} in {weights:?}");
        }
    }
}

#[test]
fn numbers_that_are_not_finite_or_too_large_are_text_or_limited() {
    let comfyui = |prompt: &str| parse(PromptWeights::ComfyUi, prompt);
    for number in ["nan", "inf", "-Infinity", "1e400", "x"] {
        let prompt = format!("(a:{number})");
        assert_eq!(comfyui(&prompt), [(format!("a:{number}"), 1.1)]);
        let a1111 = parse(PromptWeights::A1111, &prompt);
        assert_eq!(a1111, [(format!("a:{number}"), 1.1)]);
    }
    assert_eq!(comfyui("(a:-1e300)"), [("a".into(), -1e6)]);
    assert_eq!(comfyui("((a:0):7)"), [("a".into(), 0.0)]);
    assert_eq!(parse(PromptWeights::A1111, "((a:999999999):999)"), [("a".into(), 1e6)]);
    assert_eq!(parse(PromptWeights::A1111, "(a:1.2.3)"), [("a:1.2.3".into(), 1.1)]);
}

#[test]
fn deep_brackets_need_no_deep_stack() {
    let count = 20_000;
    let prompt = "(".repeat(count) + "a" + &")".repeat(count);
    let comfyui = parse(PromptWeights::ComfyUi, &prompt);
    let (text, weight) = &comfyui[0];
    assert!(
        comfyui.len() == 1 && text.len() == prompt.len() - 200 && (13_780.0..13_781.0).contains(weight),
        "{weight}"
    );
    let a1111 = parse(PromptWeights::A1111, &prompt);
    let deep = count - 1000;
    assert!(a1111 == [("(".repeat(deep) + "a", 1e6), (")".repeat(deep), 1.0)], "{} parts", a1111.len());
}

#[test]
fn every_text_has_finite_weights_and_keeps_its_words() {
    let pieces = [
        "(", ")", "[", "]", ":", "\\", "1.2", "-3", "nan", "é", "星", "a", "b c", " ", "\n", "BREAK", "\u{0}", "1e9",
        ".",
    ];
    let mut state = 1u64;
    let mut random = |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % below
    };
    for _ in 0..20_000 {
        let prompt: String = (0..random(24)).map(|_| pieces[random(pieces.len())]).collect();
        let off = PromptWeights::Off.parse(&prompt);
        assert!(off.len() == 1 && off[0].text == prompt && off[0].weight == 1.0);
        for weights in [PromptWeights::ComfyUi, PromptWeights::A1111] {
            let parts = weights.parse(&prompt);
            assert!(parts.iter().all(|part| part.weight.abs() <= MAX_WEIGHT as f32), "{prompt:?}");
            let text: String = parts.into_iter().map(|part| part.text).collect();
            let words = |text: &str| text.chars().filter(|c| "éabc星".contains(*c)).collect::<String>();
            assert_eq!(words(&text), words(&prompt), "{prompt:?} in {weights:?}");
        }
    }
}
