//! What holds for a job at either provider: it is submitted once, asked about, and cancelled when nobody waits for it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use lumenfall::backend::{Backend, Content, Progress, RequestContext};
use lumenfall::remote::ClientBuilder;
use lumenfall::{Error, ErrorKind};
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use wiremock::{MockServer, ResponseTemplate};

use crate::support::{builder, count, generate_spec, json, listening, on, own_http_client, patient, requests};

/// A provider, and a job there in its own words.
struct Provider {
    name: &'static str,
    backend: fn(ClientBuilder, Duration) -> Box<dyn Backend>,
    submit: &'static str,
    /// It also names addresses, which lead elsewhere.
    taken: &'static str,
    status: &'static str,
    queued: &'static str,
    running: &'static str,
    ended: &'static str,
    /// Where the images are told: for Replicate, in the status itself.
    result: &'static str,
    images: &'static str,
    cancel: (&'static str, &'static str),
}

const PROVIDERS: [Provider; 2] = [
    Provider {
        name: "fal",
        backend: |builder, interval| Box::new(builder.fal().unwrap().poll_interval(interval)),
        submit: "/fal-ai/stable-diffusion-v35-medium",
        taken: r#"{"request_id":"j1","status_url":"https://evil.example/s","cancel_url":"https://evil.example/c"}"#,
        status: "/fal-ai/stable-diffusion-v35-medium/requests/j1/status",
        queued: r#"{"status":"IN_QUEUE"}"#,
        running: r#"{"status":"IN_PROGRESS"}"#,
        ended: r#"{"status":"COMPLETED"}"#,
        result: "/fal-ai/stable-diffusion-v35-medium/requests/j1",
        images: r#"{"images":[{"url":"https://files.example/1"}]}"#,
        cancel: ("PUT", "/fal-ai/stable-diffusion-v35-medium/requests/j1/cancel"),
    },
    Provider {
        name: "replicate",
        backend: |builder, interval| Box::new(builder.replicate().unwrap().poll_interval(interval)),
        submit: "/models/stability-ai/stable-diffusion-3.5-medium/predictions",
        taken: r#"{"id":"j1","urls":{"get":"https://evil.example/s","cancel":"https://evil.example/c"}}"#,
        status: "/predictions/j1",
        queued: r#"{"status":"starting"}"#,
        running: r#"{"status":"processing"}"#,
        ended: r#"{"status":"succeeded","output":["https://files.example/1"]}"#,
        result: "/predictions/j1",
        images: r#"{"status":"succeeded","output":["https://files.example/1"]}"#,
        cancel: ("POST", "/predictions/j1/cancel"),
    },
];

const SOON: Duration = Duration::from_millis(10);

impl Provider {
    fn backend(&self, server: &MockServer, interval: Duration) -> Box<dyn Backend> {
        (self.backend)(builder(&server.uri()).retry(patient(1)), interval)
    }

    /// A server that takes a job.
    async fn server(&self) -> MockServer {
        let server = MockServer::start().await;
        on(&server, "POST", self.submit, None, json(201, self.taken)).await;
        on(&server, self.cancel.0, self.cancel.1, None, json(200, "{}")).await;
        server
    }

    async fn status(&self, server: &MockServer, times: Option<u64>, answer: ResponseTemplate) {
        on(server, "GET", self.status, times, answer).await;
    }

    async fn result(&self, server: &MockServer) {
        on(server, "GET", self.result, None, json(200, self.images)).await;
    }

    async fn submissions(&self, server: &MockServer) -> usize {
        count(server, "POST", self.submit).await
    }

    /// Waits until a job is submitted.
    async fn submitted(&self, server: &MockServer) {
        while self.submissions(server).await == 0 {
            tokio::time::sleep(SOON).await;
        }
    }

    /// Waits until it is told so many times to cancel a job.
    async fn cancelled(&self, server: &MockServer, times: usize) {
        let started = Instant::now();
        while self.cancellations(server).await < times {
            assert!(started.elapsed() < Duration::from_secs(5), "no cancellation came to {}", self.name);
            tokio::time::sleep(SOON).await;
        }
    }

    async fn cancellations(&self, server: &MockServer) -> usize {
        count(server, self.cancel.0, self.cancel.1).await
    }

    /// The error of a call that has this long.
    async fn error_within(&self, server: &MockServer, interval: Duration, time: Duration) -> Error {
        // Made before its time begins: it reads certificates.
        let backend = self.backend(server, interval);
        let mut context = RequestContext::default();
        context.deadline = Some(Instant::now() + time);
        backend.generate(generate_spec(), context).await.unwrap_err()
    }
}

#[tokio::test]
async fn progress_is_told_in_order() {
    for provider in PROVIDERS {
        let server = provider.server().await;
        provider.status(&server, Some(1), json(200, provider.queued)).await;
        provider.status(&server, Some(1), json(200, provider.running)).await;
        provider.status(&server, None, json(200, provider.ended)).await;
        provider.result(&server).await;
        let (context, heard) = listening();
        let output = provider.backend(&server, SOON).generate(generate_spec(), context).await.unwrap();
        assert_eq!(output.images[0].content, Content::Address("https://files.example/1".into()), "{}", provider.name);
        let told = heard.lock().unwrap().clone();
        assert_eq!(told, [Progress::Queued { position: None }, Progress::Running], "{}", provider.name);
        assert_eq!(provider.cancellations(&server).await, 0, "{}", provider.name);
    }
}

#[tokio::test]
async fn a_job_that_nobody_waits_for_is_cancelled() {
    for provider in PROVIDERS {
        let server = provider.server().await;
        provider.status(&server, None, json(200, provider.queued)).await;
        let backend = provider.backend(&server, SOON);
        let asked = async {
            while count(&server, "GET", provider.status).await == 0 {
                tokio::time::sleep(SOON).await;
            }
        };
        tokio::select! {
            ended = backend.generate(generate_spec(), RequestContext::default()) => panic!("{ended:?}"),
            () = asked => {}
        }
        provider.cancelled(&server, 1).await;
        assert_eq!(provider.submissions(&server).await, 1);
    }
}

/// Only its answer names the job.
#[tokio::test]
async fn a_job_that_nobody_waits_for_before_its_submission_is_answered_is_cancelled() {
    for provider in PROVIDERS {
        let server = MockServer::start().await;
        let late = json(201, provider.taken).set_delay(Duration::from_secs(2));
        on(&server, "POST", provider.submit, None, late).await;
        on(&server, provider.cancel.0, provider.cancel.1, None, json(200, "{}")).await;
        let backend = provider.backend(&server, SOON);
        tokio::select! {
            ended = backend.generate(generate_spec(), RequestContext::default()) => panic!("{ended:?}"),
            () = provider.submitted(&server) => {}
        }
        provider.cancelled(&server, 1).await;
        let error = provider.error_within(&server, SOON, Duration::from_secs(1)).await;
        assert_eq!((error.kind(), error.maybe_billed()), (ErrorKind::Timeout, true), "{error}");
        provider.cancelled(&server, 2).await;
        let builder = builder(&server.uri()).first_byte_timeout(Duration::from_secs(1));
        let error = (provider.backend)(builder, SOON).generate(generate_spec(), RequestContext::default()).await;
        assert_eq!(
            error.unwrap_err().to_string(),
            "no answer came within 1 seconds (the request may have been billed)"
        );
        provider.cancelled(&server, 3).await;
        assert_eq!(provider.submissions(&server).await, 3);
    }
}

#[tokio::test]
async fn a_submission_that_nobody_waits_for_is_not_sent_or_sent_again() {
    for provider in PROVIDERS {
        // Dropped before there is a connection.
        let server = provider.server().await;
        let slow = own_http_client().dns_resolver(Arc::new(Slow(*server.address()))).build().unwrap();
        let backend = (provider.backend)(
            builder(&format!("http://host.invalid:{}", server.address().port())).http_client(slow),
            SOON,
        );
        let call = backend.generate(generate_spec(), RequestContext::default());
        assert!(tokio::time::timeout(Slow::TIME / 2, call).await.is_err());
        tokio::time::sleep(Slow::TIME).await;
        assert_eq!(provider.submissions(&server).await, 0, "{}", provider.name);

        // Dropped before it is refused.
        let server = MockServer::start().await;
        let refusal = ResponseTemplate::new(429).insert_header("retry-after-ms", "1").set_delay(SOON * 20);
        on(&server, "POST", provider.submit, None, refusal).await;
        let backend = provider.backend(&server, SOON);
        tokio::select! {
            ended = backend.generate(generate_spec(), RequestContext::default()) => panic!("{ended:?}"),
            () = provider.submitted(&server) => {}
        }
        tokio::time::sleep(SOON * 50).await;
        assert_eq!(provider.submissions(&server).await, 1, "{}", provider.name);
    }
}

/// Finds a host, in its own time.
struct Slow(SocketAddr);

impl Slow {
    const TIME: Duration = Duration::from_millis(300);
}

impl Resolve for Slow {
    fn resolve(&self, _: Name) -> Resolving {
        let address = self.0;
        Box::pin(async move {
            tokio::time::sleep(Self::TIME).await;
            Ok(Box::new(std::iter::once(address)) as Addrs)
        })
    }
}

#[tokio::test]
async fn a_job_beyond_the_deadline_may_have_been_billed_and_is_cancelled() {
    for provider in PROVIDERS {
        let server = provider.server().await;
        provider.status(&server, None, json(200, provider.running)).await;
        let error = provider.error_within(&server, SOON, Duration::from_secs(4)).await;
        assert_eq!((error.kind(), error.maybe_billed()), (ErrorKind::Timeout, true), "{error}");
        assert_eq!(error.request_id(), Some("j1"));
        assert!(error.attempts() == 1 && error.elapsed() > Some(Duration::from_secs(2)), "{error:?}");
        // At once: a program may end here.
        assert_eq!(provider.cancellations(&server).await, 1, "{}", provider.name);
    }
}

#[tokio::test]
async fn a_job_that_nothing_is_heard_of_is_cancelled_before_the_deadline() {
    for provider in PROVIDERS {
        let server = provider.server().await;
        let silence = json(200, provider.running).set_delay(Duration::from_secs(60));
        provider.status(&server, None, silence).await;
        let error = provider.error_within(&server, SOON, Duration::from_secs(4)).await;
        assert_eq!((error.kind(), error.maybe_billed()), (ErrorKind::Timeout, true), "{error}");
        assert_eq!(error.request_id(), Some("j1"));
        assert_eq!(provider.cancellations(&server).await, 1, "{}", provider.name);
    }
}

#[tokio::test]
async fn a_page_of_somebody_between_does_not_end_a_job() {
    for provider in PROVIDERS {
        let server = provider.server().await;
        let page = ResponseTemplate::new(200).set_body_string("<html>please wait</html>");
        // More often than one question is tried again.
        provider.status(&server, Some(3), page.clone()).await;
        provider.status(&server, Some(1), json(200, provider.ended)).await;
        on(&server, "GET", provider.result, Some(1), page).await;
        provider.result(&server).await;
        let backend = provider.backend(&server, SOON);
        let output = backend.generate(generate_spec(), RequestContext::default()).await.unwrap();
        assert_eq!(output.images[0].content, Content::Address("https://files.example/1".into()), "{}", provider.name);
        assert_eq!(provider.submissions(&server).await, 1);
        assert_eq!(provider.cancellations(&server).await, 0);
    }
}

#[tokio::test]
async fn an_ambiguous_submission_is_not_repeated() {
    for provider in PROVIDERS {
        let server = MockServer::start().await;
        on(&server, "POST", provider.submit, None, ResponseTemplate::new(500)).await;
        let backend = provider.backend(&server, SOON);
        let error = backend.generate(generate_spec(), RequestContext::default()).await.unwrap_err();
        assert_eq!((error.status(), error.maybe_billed_tries()), (Some(500), 1), "{}", provider.name);
        assert_eq!(requests(&server).await.len(), 1);
    }
}

#[tokio::test]
async fn a_submission_that_was_refused_for_now_is_tried_again() {
    for provider in PROVIDERS {
        for status in [429, 503] {
            let server = MockServer::start().await;
            let refusal = ResponseTemplate::new(status).insert_header("retry-after-ms", "1");
            on(&server, "POST", provider.submit, Some(1), refusal).await;
            on(&server, "POST", provider.submit, None, json(201, provider.taken)).await;
            provider.status(&server, None, json(200, provider.ended)).await;
            provider.result(&server).await;
            let backend = provider.backend(&server, SOON);
            let output = backend.generate(generate_spec(), RequestContext::default()).await.unwrap();
            assert_eq!(output.metadata.lost_bills, 0, "{} {status}", provider.name);
            assert_eq!(provider.submissions(&server).await, 2, "{} {status}", provider.name);
        }
    }
}

#[tokio::test]
async fn a_strange_answer_is_believed_when_it_comes_again_and_again() {
    for provider in PROVIDERS {
        for status in [302, 401, 404] {
            let server = provider.server().await;
            provider.status(&server, Some(2), json(status, "{}")).await;
            provider.status(&server, Some(1), json(200, provider.running)).await;
            provider.status(&server, Some(2), json(status, "{}")).await;
            provider.status(&server, None, json(200, provider.ended)).await;
            provider.result(&server).await;
            let backend = provider.backend(&server, SOON);
            backend.generate(generate_spec(), RequestContext::default()).await.unwrap();
            assert_eq!(provider.cancellations(&server).await, 0, "{} {status}", provider.name);
        }
        let server = provider.server().await;
        provider.status(&server, None, json(404, "{}")).await;
        let error = provider.error_within(&server, SOON, Duration::from_secs(60)).await;
        assert_eq!((error.kind(), error.maybe_billed(), error.request_id()), (ErrorKind::NotFound, true, Some("j1")));
        assert_eq!(error.attempts(), 1, "of the submission");
        assert_eq!(count(&server, "GET", provider.status).await, 3, "{}", provider.name);
    }
}

#[tokio::test]
async fn a_result_is_asked_for_until_it_comes() {
    for provider in PROVIDERS {
        let server = provider.server().await;
        provider.status(&server, Some(1), json(200, provider.ended)).await;
        // More often than the policy would ask on its own.
        on(&server, "GET", provider.result, Some(8), ResponseTemplate::new(503)).await;
        provider.result(&server).await;
        let backend = provider.backend(&server, SOON);
        let output = backend.generate(generate_spec(), RequestContext::default()).await.unwrap();
        assert_eq!(output.images.len(), 1, "{}", provider.name);
        assert_eq!(provider.submissions(&server).await, 1, "{}", provider.name);
    }
}

#[tokio::test]
async fn an_interval_longer_than_the_time_left_leaves_a_last_question() {
    for provider in PROVIDERS {
        let server = provider.server().await;
        provider.status(&server, Some(1), json(200, provider.running)).await;
        provider.status(&server, None, json(200, provider.ended)).await;
        provider.result(&server).await;
        let backend = provider.backend(&server, Duration::from_secs(60));
        let mut context = RequestContext::default();
        context.deadline = Some(Instant::now() + Duration::from_secs(4));
        backend.generate(generate_spec(), context).await.unwrap();
    }
}

#[tokio::test]
async fn bills_before_a_job_are_counted_where_it_fails() {
    for provider in PROVIDERS {
        let server = MockServer::start().await;
        on(&server, "POST", provider.submit, Some(1), ResponseTemplate::new(500)).await;
        on(&server, "POST", provider.submit, None, json(201, provider.taken)).await;
        provider.status(&server, None, json(404, "{}")).await;
        let builder = builder(&server.uri()).retry(patient(1).may_bill_twice());
        let error = (provider.backend)(builder, SOON).generate(generate_spec(), RequestContext::default()).await;
        assert_eq!(error.unwrap_err().maybe_billed_tries(), 2, "{}", provider.name);
    }
}

#[tokio::test]
async fn what_has_a_function_of_its_own_is_no_extra_parameter() {
    let own = [
        ("fal", ["num_images", "image_size", "seed", "n"]),
        ("replicate", ["cfg", "aspect_ratio", "prompt_strength", "n"]),
    ];
    for (provider, (name, extras)) in PROVIDERS.iter().zip(own) {
        assert_eq!(provider.name, name);
        let server = provider.server().await;
        for extra in extras {
            let mut spec = generate_spec();
            spec.options.extra.insert(extra.into(), 4.into());
            let backend = provider.backend(&server, SOON);
            let error = backend.generate(spec, RequestContext::default()).await.unwrap_err();
            assert_eq!((error.kind(), error.parameter()), (ErrorKind::InvalidRequest, Some(extra)), "{name}");
        }
        assert_eq!(provider.submissions(&server).await, 0, "{name}");
    }
}

#[tokio::test]
async fn a_job_that_a_strange_answer_ends_is_cancelled_before_the_call_returns() {
    for provider in PROVIDERS {
        let server = provider.server().await;
        provider.status(&server, None, json(404, "{}")).await;
        provider.error_within(&server, SOON, Duration::from_secs(60)).await;
        assert_eq!(provider.cancellations(&server).await, 1, "{}", provider.name);
    }
}

#[tokio::test]
async fn one_strange_answer_on_the_last_question_ends_no_job_early() {
    for provider in PROVIDERS {
        let server = provider.server().await;
        provider.status(&server, Some(1), json(200, provider.running)).await;
        provider.status(&server, Some(1), json(404, "{}")).await;
        provider.status(&server, None, json(200, provider.ended)).await;
        provider.result(&server).await;
        let backend = provider.backend(&server, Duration::from_secs(60));
        let mut context = RequestContext::default();
        context.deadline = Some(Instant::now() + Duration::from_secs(4));
        backend.generate(generate_spec(), context).await.unwrap();
    }
}
