//! Saving: a file appears completely or not at all, whatever fails.

use std::path::Path;

use futures_util::FutureExt;

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
    images(with_urls(&[&format!("{}/1.png?sig=canary", files.uri)])).await
}

#[test]
fn a_save_creates_or_replaces_the_file_whose_name_may_have_the_maximum_length() {
    paused(async {
        let folder = tempfile::tempdir().unwrap();
        let name = "a".repeat(251) + ".png";
        let path = folder.path().join(&name);
        for images in [received().await, hosted(Act::Send(response("200 OK", "", PNG))).await] {
            images[0].save(&path).await.unwrap();
            assert_eq!(std::fs::read(&path).unwrap(), PNG);
            std::fs::write(&path, "an older file").unwrap();
        }
        assert_eq!(names(folder.path()), [name]);
    });
}

#[test]
fn a_save_that_fails_changes_nothing() {
    let truncated = b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\nthe rest is missing, but this is enough".to_vec();
    for (response, kind, status) in [
        (truncated, ErrorKind::Connection, None),
        (response("200 OK", "", "<html>"), ErrorKind::InvalidResponse, None),
        (response("403 Forbidden", "", "expired: canary"), ErrorKind::NotFound, Some(403)),
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
