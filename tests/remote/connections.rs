//! Connections: a server that closes idle connections loses no paid request.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use lumenfall::Input;
use lumenfall::remote::RemoteBuilder;
use tokio::runtime;

use crate::support::*;

/// How long the server keeps an idle connection.
const KEEP_ALIVE: Duration = Duration::from_millis(20);

/// Starts a server that keeps connections open for `KEEP_ALIVE` after each response. Returns its URL, and the method of each
/// request with the number of earlier requests on the same connection.
fn server() -> (String, Receiver<(String, usize)>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let uri = format!("http://{}", listener.local_addr().unwrap());
    let (requests, received) = channel();
    let image = format!("{uri}/1.png");
    thread::spawn(move || {
        for stream in listener.incoming() {
            let (requests, image) = (requests.clone(), image.clone());
            thread::spawn(move || serve(stream.unwrap(), &image, &requests));
        }
    });
    (uri, received)
}

fn serve(stream: TcpStream, image: &str, requests: &Sender<(String, usize)>) -> Option<()> {
    stream.set_read_timeout(Some(KEEP_ALIVE)).ok()?;
    let mut reader = BufReader::new(&stream);
    for earlier in 0.. {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            // An error or an empty read is the end of the connection.
            (reader.read_until(b'\n', &mut head).ok()? > 0).then_some(())?;
        }
        let head = String::from_utf8(head).unwrap().to_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
        reader.read_exact(&mut vec![0; length.unwrap_or(0)]).ok()?;
        let method = head.split(' ').next()?.to_owned();
        let body = if method == "get" { PNG.to_vec() } else { with_urls(&[image]).into_bytes() };
        requests.send((method, earlier)).ok()?;
        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len());
        (&stream).write_all(&[head.as_bytes(), &body].concat()).ok()?;
    }
    None
}

/// On a current-thread runtime that is not running, the client cannot notice that the server closes the connection.
#[test]
fn a_paid_request_after_a_pause_does_not_use_a_connection_that_the_server_has_closed() {
    let current = || runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let multi = || runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    for runtime in [current(), multi()] {
        for custom in [None, Some(http_client().build().unwrap())] {
            let (uri, requests) = server();
            let builder = builder(&uri).retry(RetryPolicy::none());
            let builder = custom.into_iter().fold(builder, RemoteBuilder::http_client);
            let client = Client::new(builder.build().unwrap());
            for _ in 0..3 {
                runtime.block_on(client.images().generate("a cat").send()).unwrap();
                thread::sleep(3 * KEEP_ALIVE);
                let images = runtime.block_on(client.images().edit(Input::bytes(PNG)).send()).unwrap();
                // A free request leaves an idle connection, too.
                runtime.block_on(images[0].download()).unwrap();
                thread::sleep(3 * KEEP_ALIVE);
            }
            let requests: Vec<_> = requests.try_iter().filter(|(method, _)| method == "post").collect();
            assert_eq!(requests, vec![("post".to_owned(), 0); 6]);
        }
    }
}

#[tokio::test]
async fn downloads_share_connections_that_paid_requests_do_not_use() {
    let (uri, requests) = server();
    let client = Client::new(builder(&uri).build().unwrap());
    let images = client.images().generate("a cat").send().await.unwrap();
    for _ in 0..3 {
        images[0].download().await.unwrap();
    }
    client.images().generate("a cat").send().await.unwrap();
    let requests: Vec<_> = requests.try_iter().collect();
    assert_eq!(
        requests,
        [("post", 0), ("get", 0), ("get", 1), ("get", 2), ("post", 0)].map(|(m, n)| (m.to_owned(), n))
    );
}
