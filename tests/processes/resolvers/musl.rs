//! musl, as in Alpine's images. It looks names that have `ndots` dots up as they are and with no ending; Debian's 1.2.3 does not know TCP,
//! and takes of a cut answer what is in it.

use std::time::Duration;

use super::pod::{AGAIN, MANY, NO_NAME, Pod, SEARCH, WEB, WWW, expect, expect_many};

#[test]
fn musl_finds_names_of_the_registry_and_of_others_with_a_search_list() {
    let pod = Pod::serving();
    let lookup = compile(&pod);
    for options in ["ndots:1", "ndots:5"] {
        pod.search(SEARCH, options);
        let names = [
            "web",
            "web.default",
            "web.default.rollcall.internal",
            "web.default.rollcall.internal.",
            "four.default.rollcall.internal",
            "www.example.test",
            "deep.www.example.test",
            "alias.example.test",
            "nope",
            "nope.default",
            "nope.default.rollcall.internal",
            "nope.example.test",
        ];
        let told = pod.look_up(&lookup, &[&["0"][..], &names].concat());
        let with_a_dot = if options == "ndots:1" { NO_NAME } else { WEB };
        expect(
            &told,
            &[
                ("web", WEB),
                ("web.default", with_a_dot),
                ("web.default.rollcall.internal", WEB),
                ("web.default.rollcall.internal.", WEB),
                ("four.default.rollcall.internal", &["10.0.1.1", "10.0.1.2"]),
                ("www.example.test", WWW),
                ("deep.www.example.test", DEEP),
                ("alias.example.test", WWW),
                ("nope", NO_NAME),
                ("nope.default", NO_NAME),
                ("nope.default.rollcall.internal", NO_NAME),
                ("nope.example.test", NO_NAME),
            ],
        );
        let six = pod.look_up(&lookup, &["6", "web", "four.default.rollcall.internal"]);
        assert_eq!(six["web"], WEB[2..]);
        assert_eq!(six["four.default.rollcall.internal"][1..], ["error"], "{six:?}");
        let told = pod.look_up(&lookup, &["0", "many.default.rollcall.internal"]);
        // Versions from 1.2.4 on ask over TCP; none takes more than 48 addresses.
        expect_many(&told["many.default.rollcall.internal"], 20..=MANY);
    }
}

#[test]
fn musl_gives_names_of_the_registry_up_while_nothing_was_learnt_and_finds_others() {
    let pod = Pod::never_loaded();
    let lookup = compile(&pod);
    // It waits for a better answer until its time is over.
    let timeout = Duration::from_secs(1);
    pod.search_for(timeout, "rollcall.internal example.test", "ndots:1");
    let own = "web.default.rollcall.internal";
    let told = pod.look_up(&lookup, &["0", own, "www.example.test", "nope.example.test"]);
    expect(&told, &[(own, AGAIN), ("www.example.test", WWW), ("nope.example.test", NO_NAME)]);
    // Where it fails with one ending, it tries no other: the registry's own should stand last.
    let told = pod.look_up(&lookup, &["0", "www"]);
    expect(&told, &[("www", AGAIN)]);
    pod.search_for(timeout, "example.test rollcall.internal", "ndots:1");
    expect(&pod.look_up(&lookup, &["0", "www"]), &[("www", WWW)]);
}

/// As README.md tells under "Other names", with what can be done about it.
#[test]
fn musl_finds_no_names_of_three_labels_with_many_ndots_while_nothing_was_learnt() {
    let pod = Pod::never_loaded();
    let lookup = compile(&pod);
    let names = ["www.example.test", "www.example.test.", "deep.www.example.test", "www"];
    let look_up = |search: &str, options: &str| {
        pod.search_for(Duration::from_secs(1), search, options);
        pod.look_up(&lookup, &[&["0"][..], &names].concat())
    };
    // An instance may be called www.example.test.rollcall.internal, but nothing deep.www.example.test.rollcall.internal.
    let others = [("www.example.test.", WWW), ("deep.www.example.test", DEEP), ("www", AGAIN)];
    let told = look_up(SEARCH, "ndots:5");
    expect(&told, &others);
    expect(&told, &[("www.example.test", AGAIN)]);
    let told = look_up(SEARCH, "ndots:1");
    expect(&told, &others);
    expect(&told, &[("www.example.test", WWW)]);
}

/// The address of `deep.www.example.test`.
const DEEP: &[&str] = &["192.0.2.5"];

fn compile(pod: &Pod) -> std::path::PathBuf {
    pod.compile("musl-gcc", &["-static"], "musl-tools")
}
