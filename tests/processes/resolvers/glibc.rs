//! glibc: `getaddrinfo`, and `getent`.

use super::pod::{AGAIN, MANY, NO_NAME, Pod, SEARCH, WEB, WWW, expect, expect_many};

#[test]
fn glibc_finds_names_of_the_registry_and_of_others_with_a_search_list() {
    let pod = Pod::serving();
    let lookup = pod.compile("cc", &[], "gcc");
    for options in
        ["ndots:1", "ndots:5", "ndots:5 edns0 trust-ad", "ndots:5 single-request", "ndots:5 use-vc"]
    {
        pod.search(SEARCH, options);
        let names = [
            "web",
            "web.default",
            "web.default.rollcall.internal",
            "web.default.rollcall.internal.",
            "WEB.Default",
            "four.default",
            "primary.web.default",
            "web-1.web.default",
            "www.example.test",
            "alias.example.test",
            "nope",
            "nope.default",
            "nope.default.rollcall.internal",
            "nope.example.test",
        ];
        let told = pod.look_up(&lookup, &[&["0"][..], &names].concat());
        expect(
            &told,
            &[
                ("web", WEB),
                ("web.default", WEB),
                ("web.default.rollcall.internal", WEB),
                ("web.default.rollcall.internal.", WEB),
                ("WEB.Default", WEB),
                ("four.default", &["10.0.1.1", "10.0.1.2"]),
                ("primary.web.default", WEB),
                ("web-1.web.default", &["10.0.0.1", "fd00::1"]),
                ("www.example.test", WWW),
                ("alias.example.test", WWW),
                ("nope", NO_NAME),
                ("nope.default", NO_NAME),
                ("nope.default.rollcall.internal", NO_NAME),
                ("nope.example.test", NO_NAME),
            ],
        );
        let four = pod.look_up(&lookup, &["4", "web.default"]);
        expect(&four, &[("web.default", &WEB[..2])]);
        let six = pod.look_up(&lookup, &["6", "web.default", "four.default.rollcall.internal."]);
        let no_data: &[&str] = &["EAI_NODATA", "error"];
        expect(&six, &[("web.default", &WEB[2..]), ("four.default.rollcall.internal.", no_data)]);
        // What does not fit into a packet it asks for again, over TCP.
        for family in ["0", "4"] {
            let told = pod.look_up(&lookup, &[family, "many.default"]);
            expect_many(&told["many.default"], MANY..=MANY);
        }
    }
    getent(&pod);
}

/// Asks only for families of which the machine has an address (`AI_ADDRCONFIG`), for each type of socket.
fn getent(pod: &Pod) {
    pod.search(SEARCH, "ndots:5");
    let printed = pod.run("getent", &["ahosts", "web.default"]);
    let mut streams: Vec<_> = printed.lines().filter(|line| line.contains("STREAM")).collect();
    streams.sort_unstable();
    let addresses: Vec<_> = streams.iter().filter_map(|line| line.split(' ').next()).collect();
    assert_eq!(addresses, WEB, "{printed}");
    assert!(
        printed.contains("web.default.rollcall.internal"),
        "the canonical name is the one that was found: {printed}"
    );
}

#[test]
fn glibc_goes_on_with_its_search_list_while_nothing_was_learnt() {
    let pod = Pod::never_loaded();
    let lookup = pod.compile("cc", &[], "gcc");
    // The registry's own ending comes first, and fails; `www` is one of the second.
    pod.search("rollcall.internal example.test", "ndots:5");
    let own =
        ["web.default.rollcall.internal", "web.default.rollcall.internal.", "nope.default.rollcall.internal"];
    let others = ["www", "four", "www.example.test", "www.example.test."];
    for family in ["0", "4"] {
        let told = pod.look_up(&lookup, &[&[family][..], &own, &others].concat());
        let expected = if family == "4" { &WWW[..1] } else { WWW };
        expect(&told, &own.map(|name| (name, AGAIN)));
        expect(&told, &[("www", expected), ("www.example.test", expected), ("www.example.test.", expected)]);
        expect(&told, &[("four", &["192.0.2.4"])]);
    }
}
