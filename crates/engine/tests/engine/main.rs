//! The engine over a model that recites the alphabet: sharing, ending, cancelling, failing, refusing.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod fake;

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use fake::{BOOM, FAIL, Stage, request, stopping};
use mlxctl_engine::{Engine, EngineHandle, EngineOptions, Event, Finish, Finished, Generation, MountError, Refused};

fn options() -> EngineOptions {
    EngineOptions { max_sequences: 4, step_tokens: 8, queue: 2, ..EngineOptions::default() }
}

fn mount(stage: &Stage, options: EngineOptions) -> (Engine, EngineHandle) {
    let engine = Engine::start("test device").unwrap();
    let handle = engine.mount(stage.factory(), options).unwrap();
    (engine, handle)
}

fn drain(mut generation: Generation) -> (String, Finished) {
    let mut text = String::new();
    while let Some(event) = generation.blocking_next() {
        match event {
            Event::Token { text: piece, .. } => text.push_str(&piece),
            Event::Done(done) => {
                text.push_str(&done.text);
                assert!(generation.blocking_next().is_none(), "nothing follows the end");
                return (text, done);
            }
        }
    }
    panic!("the events ended without a last one");
}

fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let limit = Instant::now() + Duration::from_secs(10);
    while !condition() {
        assert!(Instant::now() < limit, "{what} did not happen within 10 s");
        std::thread::yield_now();
    }
}

#[test]
fn an_answer_ends_with_the_models_end_and_is_counted() {
    let (_engine, handle) = mount(&Stage::open(), options());
    let (text, done) = drain(handle.submit(request(&[22, 23])).unwrap());
    assert_eq!(text, "xyz");
    assert_eq!(done.reason, Finish::Stop);
    assert_eq!((done.prompt_tokens, done.generated_tokens), (2, 4), "x, y, z and the end");
    assert_eq!(done.end, Some(fake::END));
}

#[test]
fn an_answer_ends_at_the_tokens_asked_for_and_at_the_end_of_the_context() {
    let (_engine, handle) = mount(&Stage::open(), EngineOptions { context: Some(10), ..options() });
    let mut three = request(&[1]);
    three.max_tokens = Some(3);
    let (text, done) = drain(handle.submit(three).unwrap());
    assert_eq!((text.as_str(), done.reason, done.generated_tokens), ("bcd", Finish::Length, 3));
    for most in [None, Some(1000)] {
        let mut long = request(&[1]);
        long.max_tokens = most;
        let (text, done) = drain(handle.submit(long).unwrap());
        assert_eq!((text.as_str(), done.reason, done.generated_tokens), ("bcdefghij", Finish::Length, 9));
    }
}

#[test]
fn a_stop_string_across_tokens_ends_an_answer_and_is_not_shown() {
    let (_engine, handle) = mount(&Stage::open(), options());
    let (text, done) = drain(handle.submit(stopping(&[1], &["efg", "q"])).unwrap());
    assert_eq!((text.as_str(), done.reason), ("bcd", Finish::Stop));
    let (text, done) = drain(handle.submit(stopping(&[24], &["yzz"])).unwrap());
    assert_eq!((text.as_str(), done.reason), ("yz", Finish::Stop), "what was kept back comes with the end");
}

#[test]
fn the_end_is_passed_over_where_that_is_asked_for() {
    let (_engine, handle) = mount(&Stage::open(), options());
    let mut more = request(&[26]);
    (more.ignore_eos, more.max_tokens) = (true, Some(1));
    let (text, done) = drain(handle.submit(more).unwrap());
    assert_eq!((text.as_str(), done.reason), ("<end>", Finish::Length));
}

#[test]
fn requests_share_steps_and_say_what_they_say_alone() {
    let (stage, gate) = Stage::gated();
    let (_engine, handle) = mount(&stage, options());
    let generations: Vec<Generation> =
        [1, 5, 9, 13].iter().map(|first| handle.submit(request(&[*first])).unwrap()).collect();
    drop(gate);
    let texts: Vec<String> = generations.into_iter().map(|generation| drain(generation).0).collect();
    let alphabet = "bcdefghijklmnopqrstuvwxyz";
    assert_eq!(texts, [alphabet, &alphabet[4..], &alphabet[8..], &alphabet[12..]]);
    assert_eq!(stage.most_shared(), 4, "all four in one step");
    assert!(stage.steps.lock().unwrap().len() < 4 * 26 / 2, "far fewer steps than tokens");
}

#[test]
fn where_the_pool_is_small_answers_are_the_same() {
    let stage = Stage::open();
    // Eight blocks of four tokens; four answers of up to 26 tokens need 26.
    let (_engine, handle) = mount(&stage, EngineOptions { kv_bytes: 8 * 4 * 2 * 4, ..options() });
    assert_eq!((handle.facts().kv_blocks, handle.facts().context), (8, 32));
    let generations: Vec<Generation> = (1..=4).map(|first| handle.submit(request(&[first])).unwrap()).collect();
    for (index, generation) in generations.into_iter().enumerate() {
        let (text, done) = drain(generation);
        assert_eq!((text.as_str(), done.reason), (&"bcdefghijklmnopqrstuvwxyz"[index..], Finish::Stop));
    }
}

#[test]
fn dropping_a_generation_cancels_its_sequence() {
    let (stage, gate) = Stage::gated();
    let (_engine, handle) = mount(&stage, options());
    let mut leaver = handle.submit(request(&[1])).unwrap();
    gate.send(()).unwrap();
    assert!(matches!(leaver.blocking_next(), Some(Event::Token { .. })));
    drop(leaver);
    // The step under way may still hold it; the one after does not.
    gate.send(()).unwrap();
    wait_until("the cancellation", || handle.open_requests() == 0);
    assert!(stage.steps.lock().unwrap().len() <= 2);
}

#[test]
fn a_client_that_does_not_read_holds_nobody_up() {
    let (_engine, handle) = mount(&Stage::open(), options());
    let unread = handle.submit(request(&[1])).unwrap();
    assert_eq!(drain(handle.submit(request(&[20])).unwrap()).0, "uvwxyz");
    wait_until("the end of the unread answer", || handle.open_requests() == 0);
    assert_eq!(drain(unread).0, "bcdefghijklmnopqrstuvwxyz");
}

#[test]
fn more_requests_than_there_are_places_are_refused() {
    let (stage, gate) = Stage::gated();
    let (_engine, handle) = mount(&stage, options());
    let taken: Vec<Generation> = (0..6).map(|_| handle.submit(request(&[25])).unwrap()).collect();
    assert_eq!(handle.submit(request(&[25])).unwrap_err(), Refused::Overloaded { open: 6 });
    drop(gate);
    for generation in taken {
        assert_eq!(drain(generation).0, "z");
    }
    wait_until("a free place", || handle.open_requests() < 6);
    assert_eq!(drain(handle.submit(request(&[25])).unwrap()).0, "z");
}

#[test]
fn what_cannot_be_served_is_refused_before_it_waits() {
    let (_engine, handle) = mount(&Stage::open(), EngineOptions { context: Some(8), ..options() });
    let refused = |prompt: &[u32]| handle.submit(request(prompt)).unwrap_err();
    assert_eq!(refused(&[]), Refused::EmptyPrompt);
    assert_eq!(refused(&[1; 8]), Refused::TooLong { prompt: 8, context: 8 });
    assert_eq!(refused(&[1, 32]), Refused::Vocabulary { token: 32, vocabulary: 32 });
    let mut hot = request(&[1]);
    hot.sampling.temperature = -1.0;
    assert!(handle.submit(hot).unwrap_err().to_string().contains("temperature"));
    assert!(refused(&[1; 9]).to_string().contains("9 tokens, the context of 8"));
    assert_eq!(handle.open_requests(), 0);
}

#[test]
fn a_panic_ends_the_requests_of_its_step_and_those_that_wait_go_on() {
    let (stage, gate) = Stage::gated();
    let (_engine, handle) = mount(&stage, EngineOptions { max_sequences: 2, ..options() });
    let neighbour = handle.submit(request(&[1])).unwrap();
    let culprit = handle.submit(request(&[BOOM])).unwrap();
    let waiting = handle.submit(request(&[20])).unwrap();
    drop(gate);
    for victim in [neighbour, culprit] {
        let (_, done) = drain(victim);
        assert!(matches!(&done.reason, Finish::Error(why) if why.contains("boom")), "{:?}", done.reason);
    }
    assert_eq!(drain(waiting).0, "uvwxyz");
    assert_eq!(stage.loads.load(Ordering::SeqCst), 2);
    assert_eq!(drain(handle.submit(request(&[25])).unwrap()).0, "z");
}

#[test]
fn a_panic_leaves_other_models_alone() {
    let engine = Engine::start("test device").unwrap();
    let (stage, gate) = Stage::gated();
    let steady = engine.mount(stage.factory(), options()).unwrap();
    let shaky = engine.mount(Stage::open().factory(), options()).unwrap();
    let steady = steady.submit(request(&[1])).unwrap();
    let shaky = shaky.submit(request(&[BOOM])).unwrap();
    drop(gate);
    assert!(matches!(drain(shaky).1.reason, Finish::Error(_)));
    assert_eq!(drain(steady).0, "bcdefghijklmnopqrstuvwxyz");
    assert_eq!(stage.loads.load(Ordering::SeqCst), 1);
}

#[test]
fn an_error_of_the_device_ends_the_requests_of_its_step_too() {
    let (_engine, handle) = mount(&Stage::open(), options());
    let (_, done) = drain(handle.submit(request(&[FAIL])).unwrap());
    assert!(matches!(&done.reason, Finish::Error(why) if why.contains("no memory for the test")), "{:?}", done.reason);
    assert_eq!(drain(handle.submit(request(&[25])).unwrap()).0, "z");
}

#[test]
fn a_model_that_cannot_be_loaded_again_is_given_up() {
    let mut stage = Stage::open();
    stage.loads_allowed = 1;
    let (_engine, handle) = mount(&stage, options());
    assert!(matches!(drain(handle.submit(request(&[BOOM])).unwrap()).1.reason, Finish::Error(_)));
    wait_until("the end of the model", || handle.stopped().is_some());
    let refused = handle.submit(request(&[1])).unwrap_err();
    assert!(matches!(&refused, Refused::Stopped { reason } if reason.contains("no more")), "{refused}");
}

#[test]
fn a_model_that_fails_again_and_again_is_given_up() {
    let stage = Stage::open();
    let (_engine, handle) = mount(&stage, options());
    for _ in 0..3 {
        assert!(matches!(drain(handle.submit(request(&[BOOM])).unwrap()).1.reason, Finish::Error(_)));
    }
    wait_until("the end of the model", || handle.stopped().is_some());
}

#[test]
fn a_model_that_cannot_be_loaded_is_an_error_that_says_why() {
    let mut stage = Stage::open();
    stage.loads_allowed = 0;
    let engine = Engine::start("test device").unwrap();
    let error = engine.mount(stage.factory(), options()).unwrap_err();
    assert!(matches!(&error, MountError::Load { message } if message == "no more"), "{error}");
}

#[test]
fn unmounting_waits_for_the_requests_taken_and_stopping_does_not() {
    let (stage, gate) = Stage::gated();
    let (engine, handle) = mount(&stage, options());
    let taken = handle.submit(request(&[20])).unwrap();
    drop(handle);
    drop(gate);
    assert_eq!(drain(taken).0, "uvwxyz");

    let (stage, gate) = Stage::gated();
    let handle = engine.mount(stage.factory(), options()).unwrap();
    let cut = handle.submit(request(&[1])).unwrap();
    gate.send(()).unwrap();
    wait_until("the first step", || stage.steps.lock().unwrap().len() == 1);
    let stopping = std::thread::spawn(move || engine.stop());
    drop(gate);
    assert!(matches!(drain(cut).1.reason, Finish::Cancelled | Finish::Stop));
    stopping.join().unwrap();
    assert!(matches!(handle.submit(request(&[1])), Err(Refused::Stopped { .. })));
}
