//! Saving: a file appears completely or not at all, whatever fails.

use std::path::Path;
use std::process::Command;

use futures_util::FutureExt;
use lumenfall::Size;
use lumenfall::images::Any;

use crate::support::*;

fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

/// Images of a response with this body.
async fn images(body: impl ToString) -> Images<Hosted> {
    let server = RawServer::start([Act::Send(response("200 OK", "", body.to_string()))]).await;
    generate(&remote(&server.uri)).await.unwrap()
}

/// Images whose bytes are part of the response.
async fn received() -> Images<Hosted> {
    images(json!({ "data": [{ "b64_json": png_base64() }] })).await
}

/// Images at the URL of a server that performs this act.
async fn hosted(act: Act) -> Images<Hosted> {
    let files = RawServer::start([act]).await;
    images(with_urls(&[&format!("{}/1.png?sig=canary-4711", files.uri)])).await
}

#[test]
fn a_save_creates_or_replaces_the_file_whose_name_may_have_the_maximum_length() {
    paused(async {
        let folder = tempfile::tempdir().unwrap();
        let name = "a".repeat(251) + ".png";
        let path = folder.path().join(&name);
        for images in [received().await, hosted(Act::Send(response("200 OK", "", PNG))).await] {
            let saved = images[0].save(&path).await.unwrap();
            assert_eq!((&saved.path, saved.format, saved.warning), (&path, Some(OutputFormat::Png), None));
            assert_eq!(std::fs::read(&path).unwrap(), PNG);
            std::fs::write(&path, "an older file").unwrap();
        }
        assert_eq!(names(folder.path()), [name]);
    });
}

#[cfg(unix)]
#[test]
fn a_save_follows_links_and_replaces_regular_files_only() {
    paused(async {
        let folder = tempfile::tempdir().unwrap();
        let [file, link, pipe] = ["a.png", "link.png", "pipe.png"].map(|name| folder.path().join(name));
        std::fs::write(&file, "an older file").unwrap();
        std::os::unix::fs::symlink("a.png", &link).unwrap();
        assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        let images = received().await;
        images[0].save(&link).await.unwrap();
        assert_eq!(std::fs::read(&file).unwrap(), PNG);
        assert!(std::fs::symlink_metadata(&link).unwrap().is_symlink());
        let error = images[0].save(&pipe).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Io);
        assert!(error.to_string().contains("pipe.png: it exists and is not a regular file"), "{error}");
        assert_eq!(names(folder.path()).len(), 3);
    });
}

#[test]
fn an_image_is_not_saved_without_a_runtime() {
    let images = tokio::runtime::Runtime::new().unwrap().block_on(received());
    let error = images[0].save("never.png").now_or_never().unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Configuration);
    assert!(!Path::new("never.png").exists());
}

#[test]
fn a_save_that_fails_changes_nothing() {
    let truncated = b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\nthe rest is missing, but this is enough".to_vec();
    for (response, kind, status) in [
        (truncated, ErrorKind::Connection, None),
        (response("200 OK", "", "<html>"), ErrorKind::InvalidResponse, None),
        (response("403 Forbidden", "", "expired: canary-4711"), ErrorKind::NotFound, Some(403)),
    ] {
        paused(async {
            let images = hosted(Act::Send(response)).await;
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("a.png");
            for before in [None, Some("an older file")] {
                before.iter().for_each(|before| std::fs::write(&path, before).unwrap());
                let error = images[0].save(&path).await.unwrap_err();
                assert_eq!((error.kind(), error.status(), error.maybe_billed()), (kind, status, false));
                assert!(!format!("{error} {error:?}").contains("canary"), "no signature: {error:?}");
                assert_eq!(std::fs::read_to_string(&path).ok().as_deref(), before);
                assert_eq!(names(folder.path()).len(), before.iter().len());
                assert_eq!(images[0].save_as(folder.path(), "b").await.unwrap_err().kind(), kind);
                assert_eq!(images.save_all(folder.path(), "b").await.unwrap_err().kind(), kind);
                assert_eq!(names(folder.path()).len(), before.iter().len());
            }
        });
    }
}

#[test]
fn a_download_is_written_while_it_arrives_and_removed_if_the_call_is_dropped() {
    let head = b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n";
    paused(async {
        let folder = tempfile::tempdir().unwrap();
        let images = hosted(Act::Hang([&head[..], PNG].concat())).await;
        let check = async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            let [name] = &names(folder.path())[..] else { panic!("{:?}", names(folder.path())) };
            assert_eq!(std::fs::read(folder.path().join(name)).unwrap(), PNG);
            assert_ne!(name, "a.png");
        };
        tokio::select! {
            result = images[0].save(folder.path().join("a.png")) => panic!("{result:?}"),
            () = check => {}
        }
        assert!(names(folder.path()).is_empty());
    });
}

#[test]
fn a_save_that_is_dropped_at_any_time_leaves_no_temporary_file() {
    // With one thread for file operations, a later operation ends after all earlier ones.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().max_blocking_threads(1).build().unwrap();
    runtime.block_on(async {
        let folder = tempfile::tempdir().unwrap();
        let images = received().await;
        for polls in 0..60 {
            let mut save = Box::pin(images[0].save(folder.path().join("a.png")));
            for _ in 0..polls % 4 {
                if (&mut save).now_or_never().is_some() {
                    break;
                }
                std::thread::yield_now();
            }
        }
        tokio::task::spawn_blocking(|| ()).await.unwrap();
        assert!(names(folder.path()).iter().all(|name| name == "a.png"), "{:?}", names(folder.path()));
    });
}

#[test]
fn a_missing_folder_is_named() {
    paused(async {
        let error = received().await[0].save("/nowhere/a.png").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Io);
        assert!(error.to_string().contains("/nowhere/a.png"), "{error}");
    });
}

#[test]
fn an_extension_that_contradicts_the_bytes_is_reported() {
    // The signature arrives in more than one piece.
    let in_pieces =
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\n\xff\xd8\xff\r\n4\r\n\xe0 an\r\n0\r\n\r\n".to_vec();
    let unknown = response("200 OK", "", "another format");
    for (response, name, format, warning) in [
        (
            in_pieces.clone(),
            "a.png",
            Some(OutputFormat::Jpeg),
            Some("contains a jpeg image; rename it to end in `.jpg`"),
        ),
        (in_pieces.clone(), "a.JPEG", Some(OutputFormat::Jpeg), None),
        (in_pieces, "a.image", Some(OutputFormat::Jpeg), None),
        (unknown.clone(), "a.webp", None, Some("does not contain a webp image")),
        (unknown, "a", None, None),
    ] {
        paused(async {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join(name);
            let saved = hosted(Act::Send(response)).await[0].save(&path).await.unwrap();
            assert_eq!((&saved.path, saved.format), (&path, format));
            assert_eq!(saved.warning.is_some(), warning.is_some(), "{name}: {saved:?}");
            let message = saved.warning.unwrap_or_default();
            assert!(warning.is_none_or(|warning| message.contains(warning) && message.contains(name)), "{message}");
            assert_eq!(names(folder.path()), [name]);
        });
    }
}

#[test]
fn the_format_selects_the_extension_of_a_stem() {
    for (content, name) in [(PNG, "v1.5.png"), (JPEG, "v1.5.jpg"), (b"another format", "v1.5.bin")] {
        paused(async {
            let folder = tempfile::tempdir().unwrap();
            let new = folder.path().join("new/folder");
            let inline = images(json!({ "data": [{ "b64_json": base64_simd::STANDARD.encode_to_string(content) }] }));
            for images in [inline.await, hosted(Act::Send(response("200 OK", "", content))).await] {
                let path = images[0].save_as(&new, "v1.5").await.unwrap();
                assert_eq!(path, new.join(name));
                assert_eq!((std::fs::read(&path).unwrap(), names(&new)), (content.to_vec(), vec![name.to_owned()]));
            }
        });
    }
}

#[test]
fn a_stem_that_is_not_a_file_name_is_rejected_before_anything_is_created() {
    paused(async {
        let folder = tempfile::tempdir().unwrap();
        let new = folder.path().join("new");
        let images = received().await;
        for stem in ["../a", "/a", "a/b", "a\\b", "..", ""] {
            for error in
                [images[0].save_as(&new, stem).await.unwrap_err(), images.save_all(&new, stem).await.unwrap_err()]
            {
                assert_eq!((error.kind(), error.parameter()), (ErrorKind::InvalidRequest, Some("stem")), "{stem}");
            }
        }
        assert!(names(folder.path()).is_empty());

        std::fs::write(&new, "a file, not a folder").unwrap();
        let error = images[0].save_as(&new, "a").await.unwrap_err();
        assert!(error.kind() == ErrorKind::Io && error.to_string().contains(new.to_str().unwrap()), "{error}");
    });
}

#[tokio::test]
async fn all_images_are_saved_with_numbers_of_equal_width() {
    let files = MockServer::start().await;
    on(&files, "GET", "/png", None, ResponseTemplate::new(200).set_body_bytes(PNG)).await;
    on(&files, "GET", "/jpeg", None, ResponseTemplate::new(200).set_body_bytes(JPEG)).await;
    let [png, jpeg, missing] = ["/png", "/jpeg", "/missing"].map(|path| format!("{}{path}", files.uri()));
    for (urls, expected) in [
        (vec![&*png], vec!["a-1.png"]),
        (vec![&png, &jpeg, &png], vec!["a-1.png", "a-2.jpg", "a-3.png"]),
        (vec![&*png; 10], (1..=10).map(|number| &*format!("a-{number:02}.png").leak()).collect()),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let paths = images(with_urls(&urls)).await.save_all(folder.path(), "a").await.unwrap();
        assert_eq!(paths, expected.iter().map(|name| folder.path().join(name)).collect::<Vec<_>>());
        let mut saved = names(folder.path());
        saved.sort();
        assert_eq!(saved, expected);
    }

    let folder = tempfile::tempdir().unwrap();
    let error = images(with_urls(&[&missing, &jpeg])).await.save_all(folder.path(), "a").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert_eq!(names(folder.path()), ["a-2.jpg"], "the other image is saved");
}

#[tokio::test]
async fn one_type_contains_images_of_both_response_formats() {
    let server = with_image(ResponseTemplate::new(200).set_body_bytes(PNG)).await;
    let client = Client::new(remote(&server.uri()));
    let hosted = client.images().generate("a cat").send().await.unwrap();
    let inline = client.images().generate("a cat").inline().send().await.unwrap();
    let url = hosted[0].url().unwrap().to_owned();
    let images: Vec<lumenfall::Image<Any>> = hosted.into_any().into_iter().chain(inline.into_any()).collect();
    assert_eq!((images[0].try_bytes(), images[0].url()), (None, Some(&*url)));
    assert_eq!((images[1].try_bytes(), images[1].url()), (Some(&PNG.into()), None));
    for image in images {
        assert_eq!(image.download().await.unwrap(), PNG);
    }
}

#[tokio::test]
async fn the_request_decides_how_any_images_are_delivered() {
    use lumenfall::ResponseFormat::{B64Json, Url};
    for (requested, downloaded) in [(None, false), (Some(Url), false), (Some(B64Json), true)] {
        let files = MockServer::start().await;
        on(&files, "GET", "/1.png", None, ResponseTemplate::new(200).set_body_bytes(PNG)).await;
        let [good, missing] = ["/1.png", "/missing.png"].map(|path| format!("{}{path}", files.uri()));
        let server = responding(json_response(200, with_urls(&[&missing, &good]))).await;
        let mut draft = Client::new(remote(&server.uri())).images().generate_spec(generate_spec());
        draft.options_mut().response_format = requested;
        let images = draft.delivered_as::<Any>().send().await.unwrap();
        let sent = sent_json(&server).await;
        assert_eq!(sent.get("response_format"), requested.map(|format| json!(format)).as_ref());
        assert_eq!(images[0].url(), Some(&*missing), "an image keeps its position and its URL");
        assert_eq!(images[1].try_bytes(), downloaded.then_some(&PNG.into()));
        assert_eq!((images.unfetched().len(), images.metadata().warnings.len()), (0, usize::from(downloaded)));
    }
}

#[tokio::test]
async fn dimensions_are_those_of_bytes_in_memory() {
    let gif = b"GIF89a\x40\x01\xf0\0\0\0\0";
    let server = with_image(ResponseTemplate::new(200).set_body_bytes(gif)).await;
    let remote = remote(&server.uri());
    assert_eq!(generate_inline(&remote).await.unwrap()[0].dimensions(), Some((320, 240)));
    assert_eq!(Size::of(gif), Some(Size::pixels(320, 240).unwrap()));
    assert_eq!(generate(&remote).await.unwrap()[0].dimensions(), None, "the image has a URL");
    assert_eq!(received().await[0].dimensions(), None, "the image has no header");
}

/// Runs in another process, because the home directory of this one cannot be changed safely.
#[test]
fn a_leading_tilde_stands_for_the_home_directory() {
    const MARKER: &str = "LUMENFALL_TEST_HOME";
    if std::env::var_os(MARKER).is_none() {
        let home = tempfile::tempdir().unwrap();
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "saving::a_leading_tilde_stands_for_the_home_directory"]).env(MARKER, "1");
        let output = command.env("HOME", home.path()).env("USERPROFILE", home.path()).output().unwrap();
        assert!(String::from_utf8_lossy(&output.stdout).contains("1 passed"), "{output:?}");
        return;
    }
    paused(async {
        let home = std::env::home_dir().unwrap();
        let images = received().await;
        assert_eq!(images[0].save("~/a.png").await.unwrap().path, home.join("a.png"));
        assert_eq!(images[0].save_as("~/b", "~").await.unwrap(), home.join("b/~.png"));
        assert_eq!(images.save_all("~/b", "c").await.unwrap(), [home.join("b/c-1.png")]);
        assert_eq!(Input::path("~/a.png").read().await.unwrap(), PNG);
        for path in ["a.png", "b/~.png", "b/c-1.png"] {
            assert_eq!(std::fs::read(home.join(path)).unwrap(), PNG);
        }
        let error = Input::path("~/missing.png").read().await.unwrap_err().to_string();
        assert!(error.contains(home.to_str().unwrap()), "{error}");
        #[cfg(feature = "local")]
        {
            let error = Client::local("~/model").unwrap_err().to_string();
            assert!(error.contains(home.join("model").to_str().unwrap()), "{error}");
        }
        #[cfg(feature = "cache")]
        {
            let server = RawServer::start([Act::Send(response(
                "200 OK",
                "",
                json!({ "data": [{ "b64_json": png_base64() }] }).to_string(),
            ))])
            .await;
            let cache = lumenfall::layers::Cache::new(remote(&server.uri), "~/cache");
            Client::new(cache).images().generate("a cat").seed(7).send().await.unwrap();
            assert_eq!(names(&home.join("cache")).len(), 1);
        }
    });
}
