//! A server with the API of the gateway and prepared responses, one thread per connection, so that its own cost is small.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;

use crate::Failure;

/// The number of images in the large response, and the size of each in bytes.
pub const IMAGES: usize = 10;
pub const IMAGE_BYTES: usize = 1_500_000;

/// The size of the uploaded and downloaded files in bytes.
pub const FILE_BYTES: usize = 200_000_000;

/// The prompt of the large response.
pub const LARGE: &str = "large";

struct Responses {
    small: Vec<u8>,
    large: Vec<u8>,
}

/// Starts the server and returns its address and the size of the large response body.
pub fn start() -> Result<(SocketAddr, usize), Failure> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let small = format!(r#"{{"created":1,"data":[{{"url":"http://{address}/file"}}]}}"#);
    let large = large_body();
    let size = large.len();
    let responses = Arc::new(Responses { small: response(small.as_bytes()), large: response(&large) });
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let responses = Arc::clone(&responses);
            thread::spawn(move || serve(stream, &responses));
        }
    });
    Ok((address, size))
}

fn response(body: &[u8]) -> Vec<u8> {
    let mut response =
        format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n", body.len())
            .into_bytes();
    response.extend_from_slice(body);
    response
}

/// Images of pseudo-random bytes, which compress as badly as real images.
fn large_body() -> Vec<u8> {
    let mut state = 0x2545_F491_4F6C_DD1D_u64;
    let mut image = vec![0; IMAGE_BYTES];
    let items: Vec<String> = (0..IMAGES)
        .map(|_| {
            for byte in &mut image {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                *byte = state as u8;
            }
            format!(r#"{{"b64_json":"{}"}}"#, base64_simd::STANDARD.encode_to_string(&image))
        })
        .collect();
    format!(r#"{{"created":1,"data":[{}]}}"#, items.join(",")).into_bytes()
}

fn serve(stream: TcpStream, responses: &Responses) -> Result<(), Failure> {
    stream.set_nodelay(true)?;
    let mut writer = stream.try_clone()?;
    let mut reader = BufReader::with_capacity(1 << 16, stream);
    let mut line = String::new();
    loop {
        line.clear();
        if reader.read_line(&mut line)? == 0 {
            return Ok(());
        }
        let download = line.starts_with("GET");
        let mut length = Some(0);
        loop {
            line.clear();
            reader.read_line(&mut line)?;
            let header = line.trim_end();
            if header.is_empty() {
                break;
            } else if let Some(value) = after(header, "content-length: ") {
                length = Some(value.parse()?);
            } else if after(header, "transfer-encoding: chunked").is_some() {
                length = None;
            }
        }
        let large = match length {
            Some(length) if length < 1 << 16 => {
                let mut body = vec![0; length];
                reader.read_exact(&mut body)?;
                let prompt = format!("\"{LARGE}\"");
                memchr::memmem::find(&body, prompt.as_bytes()).is_some()
            }
            Some(length) => discard(&mut reader, length).map(|()| false)?,
            None => discard_chunks(&mut reader).map(|()| false)?,
        };
        if download {
            send_file(&mut writer)?;
        } else {
            writer.write_all(if large { &responses.large } else { &responses.small })?;
        }
    }
}

/// Returns what follows `name` in a header, ignoring case.
fn after<'a>(header: &'a str, name: &str) -> Option<&'a str> {
    let (start, rest) = header.split_at_checked(name.len())?;
    start.eq_ignore_ascii_case(name).then_some(rest)
}

fn discard(reader: &mut impl BufRead, mut length: usize) -> Result<(), Failure> {
    while length > 0 {
        let available = reader.fill_buf()?.len().min(length);
        if available == 0 {
            return Err("the body is truncated".into());
        }
        reader.consume(available);
        length -= available;
    }
    Ok(())
}

fn discard_chunks(reader: &mut impl BufRead) -> Result<(), Failure> {
    let mut line = String::new();
    loop {
        line.clear();
        reader.read_line(&mut line)?;
        let length = usize::from_str_radix(line.trim(), 16)?;
        discard(reader, length + 2)?;
        if length == 0 {
            return Ok(());
        }
    }
}

fn send_file(writer: &mut impl Write) -> Result<(), Failure> {
    write!(writer, "HTTP/1.1 200 OK\r\ncontent-type: image/png\r\ncontent-length: {FILE_BYTES}\r\n\r\n")?;
    let chunk = vec![7; 1 << 16];
    let mut left = FILE_BYTES;
    while left > 0 {
        let length = left.min(chunk.len());
        writer.write_all(&chunk[..length])?;
        left -= length;
    }
    Ok(())
}
