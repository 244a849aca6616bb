//! The HTTP server of the mock gateway and its routes.

use std::error::Error;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::account::{self, Entry, KEY, Received};
use super::faults::{self, Fault, Faults};
use super::http::{Form, Reply, Request, Response, header};
use super::images;
use crate::generated::stable_diffusion_3_5_medium::SCHEMA;

/// The state that all connections share.
#[derive(Debug)]
pub(super) struct Server {
    pub(super) address: SocketAddr,
    pub(super) state: Mutex<State>,
}

#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) entries: Vec<Entry>,
    pub(super) requests: Faults,
    pub(super) downloads: Faults,
}

impl Server {
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Serves connections until it is dropped.
    pub(super) async fn run(self: Arc<Self>, listener: TcpListener) {
        let mut connections = JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            connections.spawn(Arc::clone(&self).serve(stream));
            // The set keeps finished tasks until they are joined.
            while connections.try_join_next().is_some() {}
        }
    }

    /// Serves one connection, with the version of HTTP that the client speaks.
    async fn serve(self: Arc<Self>, stream: TcpStream) {
        let service = service_fn(|request: hyper::Request<Incoming>| {
            let server = Arc::clone(&self);
            async move {
                let (head, body) = request.into_parts();
                let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
                server.respond(&Request::from_parts(head, body)).await
            }
        });
        // An HTTP/2 connection starts with "PRI * HTTP/2.0".
        let mut start = [0; 3];
        if stream.peek(&mut start).await.is_ok() && &start == b"PRI" {
            let http2 = http2::Builder::new(TokioExecutor::new());
            let _ = http2.serve_connection(TokioIo::new(stream), service).await;
            return;
        }
        let mut connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
        if (&mut connection).await.is_err_and(|error| is_reset(&error)) {
            let _ = connection.into_parts().io.into_inner().set_zero_linger();
        }
    }

    async fn respond(&self, request: &Request) -> io::Result<Response> {
        let path = request.uri().path();
        if let Some(file) = path.strip_prefix("/files/") {
            return self.download(file, request).await;
        }
        if !is_authorized(request) {
            return faults::respond(None, Reply::error(401, "AUTHENTICATION_FAILED", "the API key is wrong"));
        }
        if let ("POST", Some(endpoint @ ("generations" | "edits"))) =
            (request.method().as_str(), path.strip_prefix("/openai/v1/images/"))
        {
            return self.execute(endpoint, request).await;
        }
        let not_found = || Reply::error(404, "NOT_FOUND", "there is no such endpoint or request");
        faults::respond(None, read(request, &mut self.state().entries).unwrap_or_else(not_found))
    }

    async fn execute(&self, endpoint: &str, request: &Request) -> io::Result<Response> {
        let mut form = match Form::read(request).await {
            Ok(form) => form,
            Err(reply) => return faults::respond(None, reply),
        };
        let received = {
            let entries = &mut self.state().entries;
            let received = Received {
                id: format!("req_mock_{}", entries.len() + 1),
                endpoint: endpoint.to_owned(),
                query: request.uri().query().unwrap_or_default().to_owned(),
                fields: form.fields.clone(),
                files: form.files.iter().map(|(name, _)| name.clone()).collect(),
                purged: false,
            };
            entries.push(Entry::new(received.clone()));
            received
        };
        let fault = self.fault(|state| &mut state.requests, &received);
        if fault == Some(Fault::OtherDelivery) {
            images::swap_response_format(&mut form);
        }
        let result = match fault.as_ref().and_then(Fault::refusal) {
            Some(refusal) => Err(refusal),
            None => images::execute(&received, request, form, self.address),
        };
        // A request that hangs is never executed.
        if fault != Some(Fault::Hang)
            && let Some(entry) = account::find(&mut self.state().entries, &received.id)
        {
            entry.finish(&result);
        }
        let (Ok(reply) | Err(reply)) = result;
        faults::wait(fault.as_ref()).await;
        faults::respond(fault, reply.header("x-lumenfall-request-id", received.id))
    }

    async fn download(&self, path: &str, request: &Request) -> io::Result<Response> {
        let id = path.split('/').next().unwrap_or_default();
        let source = account::find(&mut self.state().entries, id).map(|entry| entry.received.clone());
        let fault = source.and_then(|source| self.fault(|state| &mut state.downloads, &source));
        faults::wait(fault.as_ref()).await;
        let reply = fault.as_ref().and_then(Fault::refusal).unwrap_or_else(|| images::file(path, request));
        faults::respond(fault, reply)
    }

    /// Returns the next fault of the queue or, if it is empty, the fault that the rule chooses.
    fn fault(&self, faults: fn(&mut State) -> &mut Faults, received: &Received) -> Option<Fault> {
        let rule = {
            let mut state = self.state();
            let faults = faults(&mut state);
            if let Some(fault) = faults.queue.pop_front() {
                return Some(fault);
            }
            faults.rule.clone()
        };
        // The rule runs without the lock, so that it may call methods of the gateway.
        rule.and_then(|rule| rule(received))
    }
}

/// Returns whether the request has the key. The name of an authentication scheme is case-insensitive.
fn is_authorized(request: &Request) -> bool {
    let credentials = header(request, "authorization").and_then(|value| value.split_once(' '));
    credentials.is_some_and(|(scheme, key)| scheme.eq_ignore_ascii_case("bearer") && key == KEY)
}

/// Returns whether a fault asked to reset the connection.
fn is_reset(error: &hyper::Error) -> bool {
    let source = error.source().and_then(|source| source.downcast_ref::<io::Error>());
    source.is_some_and(|source| source.kind() == io::ErrorKind::ConnectionReset)
}

/// Responds to a request about models or the account; `None` for any other request.
fn read(request: &Request, entries: &mut [Entry]) -> Option<Reply> {
    let path = request.uri().path();
    let path: Vec<&str> = path.strip_prefix("/openai").unwrap_or(path).strip_prefix("/v1/")?.split('/').collect();
    let schema: Value = serde_json::from_str(SCHEMA.json).unwrap_or_default();
    let model = json!({ "id": SCHEMA.id, "object": "model", "owned_by": "stability-ai", "schema": schema });
    let body = match (request.method().as_str(), path.as_slice()) {
        ("GET", ["models"]) => json!({ "object": "list", "data": [model] }),
        ("GET", ["models", id]) if *id == SCHEMA.id => model,
        ("GET", ["balance"]) => account::balance(entries),
        ("GET", ["requests"]) => return Some(account::list(request, entries)),
        ("GET", ["requests", id]) => account::find(entries, id)?.record(),
        ("DELETE", ["requests", id, "payloads"]) => {
            account::find(entries, id)?.received.purged = true;
            json!({ "id": id, "object": "request", "deleted": true })
        }
        _ => return None,
    };
    Some(Reply::json(200, &body))
}
