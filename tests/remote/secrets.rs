//! Nothing that prints holds the key, a signature or an image's data.

use lumenfall::Client;
use lumenfall::remote::ClientBuilder;

use crate::support::{KEY, ONE_ADDRESS, answering, builder, generate, json, remote};

#[test]
fn debug_does_not_print_the_key() {
    let builder = builder("https://host.example/v1?key=canary-4711").header("x-secret", "canary-4711");
    let client = builder.clone().build().unwrap();
    let text = format!("{builder:?} {:?} {client:?} {:?}", builder.clone().backend().unwrap(), client.backend());
    assert!(!text.contains("canary"), "{text}");
    let text = format!("{:?} {:?}", ClientBuilder::default(), Client::builder().api_key("bad\ncanary"));
    assert!(!text.contains("canary"), "{text}");
}

#[tokio::test]
async fn a_service_that_quotes_the_key_or_an_address_is_not_repeated() {
    let body = format!(
        r#"{{"error":{{"message":"bad key {KEY}, see https://x.example/a?sig=canary","code":"{KEY}","param":"{KEY}"}}}}"#
    );
    let error = generate(&remote(&answering(json(401, &body)).await)).await.unwrap_err();
    let text = format!("{error} {error:?} {:?} {:?}", error.code(), error.parameter());
    assert!(!text.contains("canary"), "{text}");
}

#[tokio::test]
async fn a_decode_failure_holds_no_image() {
    let body = format!(r#"{{"data":[{{"b64_json":"{}*"}}]}}"#, "QUJD".repeat(10_000));
    let error = generate(&remote(&answering(json(200, &body)).await)).await.unwrap_err();
    let text = format!("{error} {error:?}");
    assert!(!text.contains("QUJD") && text.len() < 1000, "{text}");
}

#[tokio::test]
async fn an_images_debug_print_holds_no_address() {
    let body = r#"{"data":[{"url":"https://media.example/1.png?sig=canary"}]}"#;
    let images = generate(&remote(&answering(json(200, body)).await)).await.unwrap();
    assert!(!format!("{images:?}").contains("canary"));
}

#[tokio::test]
async fn headers_are_printed_by_name_and_only_harmless_ones_by_value() {
    let answer = json(200, ONE_ADDRESS)
        .insert_header("location", "https://media.example/1.png?sig=canary")
        .insert_header("x-echo", format!("Bearer {KEY}").as_str())
        .insert_header("x-lumenfall-provider", format!("replicate {KEY}").as_str());
    let remote = builder(&answering(answer).await.uri()).header("x-prefer", "replicate").backend().unwrap();
    let images = generate(&remote).await.unwrap();
    let headers = &images.metadata().headers;
    assert_eq!(headers.get("location"), Some("https://media.example/1.png?sig=canary"), "whoever asks is told");
    let text = format!("{:?}", images.metadata());
    for shown in [
        r#""location": …"#,
        r#""x-echo": …"#,
        r#""content-type": "application/json""#,
        r#""x-lumenfall-provider": …"#,
        r#"provider: Some("replicate [key]")"#,
    ] {
        assert!(text.contains(shown), "{text}");
    }
    assert!(!format!("{images:?}").contains("canary"));
}
