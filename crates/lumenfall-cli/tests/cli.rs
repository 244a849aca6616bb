//! Runs the program `lumenfall` as a user does.

// Clippy does not recognise helper functions as part of tests.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::fs;
use std::path::Path;
use std::process::Stdio;

use lumenfall::testing::{Fault, MockGateway};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::process::{Child, Command};

const PROMPT: &str = "a red circle on a white background";
const PNG: &[u8] = b"\x89PNG";
const JPEG: &[u8] = b"\xff\xd8\xff";

/// Runs the program in a new folder, and keeps the folder for later runs.
struct Cli {
    folder: TempDir,
    variables: Vec<(&'static str, String)>,
}

#[derive(Debug)]
struct Result {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

impl Result {
    fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap()
    }
}

impl Cli {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap(), variables: Vec::new() }
    }

    /// Connects the program to a gateway.
    fn with(gateway: &MockGateway) -> Self {
        let base_url = gateway.base_url();
        let native_url = base_url.replace("/openai/v1", "/v1");
        let variables = vec![
            ("LUMENFALL_API_KEY", gateway.key().to_owned()),
            ("LUMENFALL_BASE_URL", base_url),
            ("LUMENFALL_NATIVE_URL", native_url),
        ];
        Self { variables, ..Self::new() }
    }

    fn start(&self, arguments: &[&str]) -> Child {
        let mut command = Command::new(env!("CARGO_BIN_EXE_lumenfall"));
        for variable in ["LUMENFALL_API_KEY", "LUMENFALL_BASE_URL", "LUMENFALL_NATIVE_URL"] {
            command.env_remove(variable);
        }
        command.envs(self.variables.clone()).args(arguments).current_dir(self.folder.path());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true).spawn().unwrap()
    }

    async fn run(&self, arguments: &[&str]) -> Result {
        end(self.start(arguments)).await
    }

    fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.folder.path().join(name)).unwrap()
    }
}

async fn end(child: Child) -> Result {
    let output = child.wait_with_output().await.unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Result { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
}

#[tokio::test]
async fn generate_saves_an_image_and_prints_only_its_path() {
    let cli = Cli::new();
    for name in ["lumenfall-1.png", "lumenfall-2.png"] {
        let result = cli.run(&["generate", PROMPT, "--seed", "7", "--steps", "2"]).await;
        assert_eq!((result.code, &*result.stdout), (Some(0), &*format!("{name}\n")), "{result:?}");
        assert!(result.stderr.starts_with("seed 7, 2 steps, "), "{result:?}");
        assert!(!result.stderr.contains('\r'), "a progress line is for terminals: {result:?}");
        assert!(cli.read(name).starts_with(PNG));
    }
    assert_eq!(cli.read("lumenfall-1.png"), cli.read("lumenfall-2.png"), "the seed is not used");
}

#[tokio::test]
async fn the_extension_selects_the_format_and_several_images_are_numbered() {
    let cli = Cli::new();
    let result = cli.run(&["generate", PROMPT, "--steps", "1", "--n", "2", "--output", "shape.jpg", "--json"]).await;
    let report = result.json();
    assert_eq!(report["images"][0]["path"], "shape-1.jpg");
    assert_eq!(report["images"][1]["path"], "shape-2.jpg");
    assert_eq!(report["images"][1]["seed"].as_u64(), report["images"][0]["seed"].as_u64().map(|seed| seed + 1));
    assert_eq!((&report["steps"], &report["warnings"]), (&json!(1), &json!([])));
    assert_eq!(report["cost"], json!({ "micros": 0, "currency": "USD" }));
    assert!(report["seconds"].as_f64().unwrap() > 0.0);
    assert_eq!(result.stderr, "");
    for name in ["shape-1.jpg", "shape-2.jpg"] {
        assert!(cli.read(name).starts_with(JPEG));
    }

    let edit = ["edit", "shape-1.jpg", "--prompt", "a blue circle", "--strength=0.5", "--steps=2", "-oedited.jpg"];
    let result = cli.run(&[&edit[..], &["--output-format", "png"]].concat()).await;
    assert_eq!((result.code, &*result.stdout), (Some(0), "edited.jpg\n"), "{result:?}");
    assert!(cli.read("edited.jpg").starts_with(PNG), "--output-format takes precedence");
    assert!(result.stderr.contains("warning: edited.jpg contains a png image"), "{result:?}");
}

const LORA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/swap.safetensors");

#[tokio::test]
async fn an_image_with_a_lora_is_repeated_from_its_file() {
    let cli = Cli::new();
    let strength = format!("{LORA}=0.8");
    let generate = ["generate", PROMPT, "--seed", "7", "--steps", "2", "--json", "-o"];
    let plain = cli.run(&[&generate[..], &["plain.png"]].concat()).await.json();
    let swap = cli.run(&[&generate[..], &["swap.png", "--lora", &strength]].concat()).await.json();
    assert_eq!(plain["parameters"]["sampling"]["seed"], 7);
    assert!((swap["parameters"]["local"]["loras"]["swap"].as_f64().unwrap() - 0.8).abs() < 1e-6, "{swap}");
    assert!(swap["fingerprint"].is_string() && swap["fingerprint"] != plain["fingerprint"]);

    let result = cli.run(&["repeat", "swap.png", "--lora", LORA, "-o", "again.png"]).await;
    assert_eq!((result.code, &*result.stdout), (Some(0), "again.png\n"), "{result:?}");
    assert!(cli.read("again.png") == cli.read("swap.png") && cli.read("plain.png") != cli.read("swap.png"));
    let result = cli.run(&["repeat", "swap.png"]).await;
    assert!(
        result.code == Some(2) && result.stderr.contains("open the model that generated it, with the same LoRAs"),
        "{result:?}"
    );
}

#[tokio::test]
async fn an_edited_image_is_repeated_with_its_source() {
    let cli = Cli::new();
    cli.run(&["generate", PROMPT, "--steps", "2", "-o", "source.png"]).await;
    let edit = ["edit", "source.png", "--prompt", "a blue star", "--steps", "2", "-o", "edited.png"];
    assert_eq!(cli.run(&edit).await.code, Some(0));
    let result = cli.run(&["repeat", "edited.png", "--source", "source.png", "-o", "again.png"]).await;
    assert_eq!(result.code, Some(0), "{result:?}");
    assert!(cli.read("again.png") == cli.read("edited.png"));
    for (arguments, message) in [
        (["repeat", "edited.png", "--mask", "source.png"], "name its source with `--source FILE`"),
        (["repeat", "source.png", "--source", "edited.png"], "was not edited"),
    ] {
        let result = cli.run(&arguments).await;
        assert!(result.code == Some(2) && result.stderr.contains(message), "{result:?}");
    }
}

#[tokio::test]
async fn errors_have_the_documented_exit_code_and_name_their_cause() {
    let cases: &[(i32, &[&str], &str)] = &[
        (2, &[], "command is missing"),
        (2, &["draw"], "unknown command \"draw\""),
        (2, &["--remote", "generate"], "first argument"),
        (2, &["generate"], "`prompt` is missing"),
        (2, &["generate", "a", "b"], "put the prompt in quotes"),
        (2, &["generate", "a", "--sise", "1"], "`lumenfall generate` has no option `--sise`"),
        (2, &["generate", "a", "--mask", "mask.png"], "`lumenfall generate` has no option `--mask`"),
        (2, &["models", "--seed", "1"], "`lumenfall models` has no option `--seed`"),
        (2, &["generate", "a", "-x"], "'-x'"),
        (2, &["generate", "a", "--size"], "'--size'"),
        (2, &["generate", "a", "--size", "2048x2048"], "size"),
        (2, &["generate", "a", "--n", "11"], "`n` is 11"),
        (2, &["generate", "a", "--n", "two"], "`--n` is \"two\"; expected a whole number"),
        (2, &["generate", "a", "--guidance", "high"], "`--guidance` is \"high\"; expected a number"),
        (2, &["generate", "a", "--timeout=-1"], "`--timeout` is \"-1\"; expected a number of seconds"),
        (2, &["generate", "a", "--output-format", "bmp"], "bmp"),
        (2, &["generate", "a", "--strength", "0.5"], "strength"),
        (2, &["generate", "a", "--provider", "fal"], "provider"),
        (2, &["generate", "a", "--extra", "x"], "NAME=VALUE"),
        (2, &["generate", "a", "--extra", "x=1"], "`x`"),
        (2, &["generate", "a", "--skip-layer-guidance"], "skip_layer_guidance"),
        (2, &["generate", "a", "--remote", "--model", "b"], "cannot be combined"),
        (2, &["generate", "a", "--lora", "a.safetensors", "--remote"], "`--lora` and `--remote` cannot be combined"),
        (9, &["generate", "a", "--lora", "absent.safetensors=0.5"], "absent.safetensors"),
        (2, &["repeat"], "`repeat` requires one image file"),
        (2, &["repeat", "a.png", "--seed", "1"], "`lumenfall repeat` has no option `--seed`"),
        (2, &["repeat", "a.png", "--lora", "b.safetensors=1"], "write `--lora FILE` without a strength"),
        (9, &["repeat", "absent.png"], "absent.png"),
        (2, &["edit"], "`image` is missing"),
        (3, &["generate", "a", "--base-url", "http://127.0.0.1:1"], "LUMENFALL_API_KEY"),
        (3, &["models", "--base-url", "ftp://127.0.0.1", "--without-key"], ""),
        (8, &["generate", "a", "--timeout", "0"], "time"),
        (9, &["generate", "a", "--model", "absent"], "absent"),
        (9, &["models", "--model", "absent"], "absent"),
        (2, &["generate", "a star", "--device", "cpu"], "`--device` requires `--model`"),
        (2, &["devices", "--seed", "1"], "`lumenfall devices` has no option `--seed`"),
        (9, &["edit", "absent.png"], "absent.png"),
        (9, &["generate", "a", "-o", "absent/a.png"], "no folder absent"),
        (9, &["generate", "a", "-o", "."], "folder"),
    ];
    let cli = Cli::new();
    for (code, arguments, message) in cases {
        let result = cli.run(arguments).await;
        assert_eq!((result.code, &*result.stdout), (Some(*code), ""), "{arguments:?}: {result:?}");
        assert!(result.stderr.starts_with("error: ") && result.stderr.contains(message), "{arguments:?}: {result:?}");

        // After the command, because the last option of some cases lacks its value.
        let (command, rest) = arguments.split_at(arguments.len().min(1));
        let result = cli.run(&[command, &["--json"], rest].concat()).await;
        let message = if arguments.is_empty() { "first argument" } else { message };
        assert_eq!((result.code, &*result.stderr), (Some(*code), ""), "{arguments:?}: {result:?}");
        let error = &result.json()["error"];
        assert!(error["message"].as_str().unwrap().contains(message), "{error}");
        assert_eq!(error["maybe_billed"], false, "{error}");
    }
    let n = cli.run(&["generate", "a", "--n", "11", "--json"]).await.json();
    assert_eq!((&n["error"]["kind"], &n["error"]["parameter"]), (&json!("invalid_request"), &json!("n")));
}

#[tokio::test]
async fn help_and_version_succeed() {
    let cli = Cli::new();
    for arguments in [&["--help"][..], &["help"], &["generate", "-h"]] {
        let result = cli.run(arguments).await;
        assert_eq!(result.code, Some(0));
        assert!(result.stdout.contains("--negative-prompt") && result.stdout.contains("Exit codes:"), "{result:?}");
    }
    assert_eq!(cli.run(&["--version"]).await.stdout, concat!("lumenfall ", env!("CARGO_PKG_VERSION"), "\n"));
}

#[tokio::test]
async fn local_models_and_estimates_need_no_server() {
    let cli = Cli::new();
    let models = cli.run(&["models"]).await;
    assert_eq!((models.code, &*models.stdout), (Some(0), "demo\n"));
    assert!(models.stderr.contains("--model PATH"));
    assert_eq!(cli.run(&["estimate", PROMPT]).await.stdout, "0.00 USD\n");

    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../lumenfall-diffusion/demo");
    let model = cli.run(&["models", "--model", path]).await;
    let architecture = "Stable Diffusion 3.5 with 6 blocks of ";
    for expected in
        [path, architecture, "denoiser: ", " million weights", "F16), ", "VAE: ", "T5: ", "memory for 128x128 pixels: "]
    {
        assert!(model.stdout.contains(expected), "{expected}: {model:?}");
    }
    let model = cli.run(&["models", "--model", path, "--json"]).await.json();
    assert!(model["architecture"].as_str().unwrap().starts_with(architecture), "{model}");
    assert_eq!((&model["models"], model["parts"].as_array().unwrap().len()), (&json!([path]), 5), "{model}");
}

#[tokio::test]
async fn remote_commands_use_the_gateway() {
    let gateway = MockGateway::start().await.unwrap();
    let cli = Cli::with(&gateway);
    let models = cli.run(&["models", "--remote"]).await;
    assert_eq!(models.stdout, "stable-diffusion-3.5-medium\n", "{models:?}");

    let estimate = cli.run(&["estimate", PROMPT, "--remote", "--n", "2"]).await;
    assert_eq!(estimate.stdout, "0.07 USD\n", "{estimate:?}");

    let url = gateway.base_url();
    let options = ["--provider", "fal", "--extra", "tiles=3", "--negative-prompt", "text", "--size", "16:9"];
    let generate = ["generate", PROMPT, "--base-url", &url, "-o", "a.png", "--json"];
    let result = cli.run(&[&generate[..], &options].concat()).await;
    assert_eq!(result.json()["images"][0]["path"], "a.png", "{result:?}");
    assert!(cli.read("a.png").starts_with(PNG));

    let result = cli.run(&["edit", "a.png", "a.png", "--mask", "a.png", "--prompt", "at night", "--remote"]).await;
    assert_eq!((result.code, &*result.stdout), (Some(0), "lumenfall-1.png\n"), "{result:?}");
    assert!(result.stderr.contains("0.035 USD"), "{result:?}");

    let received = gateway.received();
    let [estimate, generate, edit] = received.as_slice() else { panic!("{received:?}") };
    assert_eq!(estimate.query, "dryRun=true");
    let fields = json!([
        generate.fields["prompt"],
        generate.fields["model"],
        generate.fields["tiles"],
        generate.fields["size"],
        generate.fields["negative_prompt"],
        generate.fields["output_format"],
    ]);
    assert_eq!(fields, json!([PROMPT, "fal/stable-diffusion-3.5-medium", 3, "16:9", "text", "png"]));
    assert_eq!((edit.files.len(), edit.fields["prompt"].as_str()), (3, Some("at night")));
}

#[tokio::test]
async fn errors_of_the_server_have_their_own_exit_codes() {
    let gateway = MockGateway::start().await.unwrap();
    let cli = Cli::with(&gateway);
    let cases = [
        (Fault::Code(402, "INSUFFICIENT_BALANCE".into()), 4, "insufficient_balance", false),
        (Fault::Code(400, "CONTENT_POLICY_VIOLATION".into()), 5, "content_policy", false),
        (Fault::Code(404, "MODEL_NOT_FOUND".into()), 6, "not_found", false),
        (Fault::Garbage, 8, "invalid_response", true),
    ];
    for (fault, code, kind, maybe_billed) in cases {
        gateway.fault_next(fault);
        let result = cli.run(&["generate", PROMPT, "--remote", "--json"]).await;
        let error = &result.json()["error"];
        assert_eq!(
            (result.code, &error["kind"], &error["maybe_billed"]),
            (Some(code), &json!(kind), &json!(maybe_billed)),
            "{error}"
        );
    }

    let mut wrong_key = Cli::with(&gateway);
    wrong_key.variables[0].1 = "lmnfl_other.secret".into();
    assert_eq!(wrong_key.run(&["generate", PROMPT, "--remote"]).await.code, Some(3));

    let sent = gateway.received().len();
    assert_eq!(cli.run(&["generate", PROMPT, "--remote", "-o", "absent/a.png"]).await.code, Some(9));
    assert_eq!(
        gateway.received().len(),
        sent,
        "a file that cannot be saved is reported before the request is paid for"
    );
}

/// Presses Ctrl-C.
#[cfg(unix)]
async fn interrupt(child: Child) -> Result {
    let id = child.id().unwrap().to_string();
    assert!(Command::new("kill").args(["-INT", &id]).status().await.unwrap().success());
    end(child).await
}

#[cfg(unix)]
#[tokio::test]
async fn ctrl_c_ends_a_remote_request_and_reports_that_it_may_be_billed() {
    let gateway = MockGateway::start().await.unwrap();
    let (received, mut request) = tokio::sync::mpsc::unbounded_channel();
    gateway.fault_when(move |_| {
        received.send(()).unwrap();
        Some(Fault::Hang)
    });
    let cli = Cli::with(&gateway);
    let child = cli.start(&["generate", PROMPT, "--remote", "--json"]);
    request.recv().await.unwrap();
    let result = interrupt(child).await;
    assert_eq!(result.code, Some(130), "{result:?}");
    assert_eq!(
        (&result.json()["error"]["kind"], &result.json()["error"]["maybe_billed"]),
        (&json!("interrupted"), &json!(true))
    );
}

/// A process that catches the signal has its bit set in the mask `SigCgt`.
#[cfg(target_os = "linux")]
async fn catches_interrupts(id: u32) {
    loop {
        let status = fs::read_to_string(Path::new("/proc").join(id.to_string()).join("status")).unwrap();
        let mask = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap();
        if u64::from_str_radix(mask.trim(), 16).unwrap() & 0b10 != 0 {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn ctrl_c_ends_local_work() {
    let cli = Cli::new();
    // The largest number of steps, which takes many seconds.
    let child = cli.start(&["generate", PROMPT, "--steps", "1000"]);
    catches_interrupts(child.id().unwrap()).await;
    let result = interrupt(child).await;
    assert_eq!((result.code, &*result.stdout, &*result.stderr), (Some(130), "", "interrupted\n"));
    assert_eq!(fs::read_dir(cli.folder.path()).unwrap().count(), 0);
}
