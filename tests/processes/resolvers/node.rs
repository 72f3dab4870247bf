//! Node: `dns.lookup`, which is the system's, and `dns.resolve…`, which is c-ares and knows no search list.

use super::pod::{INSTANCES, MANY, Pod, SEARCH, WEB, WWW, expect, expect_many};

/// Prints a line for each `METHOD:NAME`: what was found, or the error's code.
const PROGRAM: &str = "
const dns = require('dns').promises;
const words = (method, found) => method == 'lookup' ? found.map(entry => entry.address)
    : method == 'resolveSrv' ? found.map(entry => `${entry.priority}/${entry.weight}/${entry.port}/${entry.name}`)
    : found.flat();
(async () => {
    for (const one of process.argv.slice(1)) {
        const [method, name] = one.split(/:(.*)/);
        try {
            const found = method == 'lookup' ? await dns.lookup(name, {all: true}) : await dns[method](name);
            console.log(one, ...words(method, found));
        } catch (error) {
            console.log(one, error.code);
        }
    }
})();
";

#[test]
fn node_finds_names_of_the_registry_and_of_others() {
    let pod = Pod::serving();
    for options in ["ndots:1", "ndots:5"] {
        pod.search(SEARCH, options);
        let found = run(
            &pod,
            &[
                "resolve4:web.default.rollcall.internal",
                "resolve6:web.default.rollcall.internal",
                "resolve6:four.default.rollcall.internal",
                "resolve4:nope.default.rollcall.internal",
                "resolve4:many.default.rollcall.internal",
                "resolveSrv:web.default.rollcall.internal",
                "resolveSrv:_default._tcp.web.default.rollcall.internal",
                "resolveSrv:many.default.rollcall.internal",
                "resolveTxt:web-1.web.default.rollcall.internal",
                "reverse:10.0.0.1",
                "reverse:fd00::2",
                "resolve4:www.example.test",
                "resolveSrv:_http._tcp.example.test",
                "resolve4:nope.example.test",
                "lookup:web.default",
                "lookup:four.default",
                "lookup:many.default",
                "lookup:nope.default",
                "lookup:www.example.test",
            ],
        );
        let srv =
            ["0/1/8080/web-1.web.default.rollcall.internal", "0/1/8080/web-2.web.default.rollcall.internal"];
        expect(
            &found,
            &[
                ("resolve4:web.default.rollcall.internal", &["10.0.0.1", "10.0.0.2"]),
                ("resolve6:web.default.rollcall.internal", &["fd00::1", "fd00::2"]),
                ("resolve6:four.default.rollcall.internal", &["ENODATA"]),
                ("resolve4:nope.default.rollcall.internal", &["ENOTFOUND"]),
                ("resolveSrv:web.default.rollcall.internal", &srv),
                ("resolveSrv:_default._tcp.web.default.rollcall.internal", &srv),
                ("resolveTxt:web-1.web.default.rollcall.internal", &["priority=0", "status=up", "weight=1"]),
                ("reverse:10.0.0.1", &["web-1.web.default.rollcall.internal"]),
                ("reverse:fd00::2", &["web-2.web.default.rollcall.internal"]),
                ("resolve4:www.example.test", &["192.0.2.1"]),
                ("resolveSrv:_http._tcp.example.test", &["1/2/80/www.example.test"]),
                ("resolve4:nope.example.test", &["ENOTFOUND"]),
                ("lookup:web.default", WEB),
                ("lookup:four.default", &["10.0.1.1", "10.0.1.2"]),
                ("lookup:nope.default", &["ENOTFOUND"]),
                ("lookup:www.example.test", WWW),
            ],
        );
        // Over TCP, since they do not fit into a packet.
        expect_many(&found["resolve4:many.default.rollcall.internal"], MANY..=MANY);
        expect_many(&found["lookup:many.default"], MANY..=MANY);
        assert_eq!(found["resolveSrv:many.default.rollcall.internal"].len(), INSTANCES);
    }
}

#[test]
fn node_is_told_that_nothing_was_learnt_and_finds_others() {
    let pod = Pod::never_loaded();
    pod.search("rollcall.internal example.test", "ndots:5");
    let found = run(
        &pod,
        &[
            "resolve4:web.default.rollcall.internal",
            "lookup:web.default",
            "resolve4:www.example.test",
            "lookup:www",
        ],
    );
    expect(
        &found,
        &[
            ("resolve4:web.default.rollcall.internal", &["ESERVFAIL"]),
            ("lookup:web.default", &["EAI_AGAIN"]),
            ("resolve4:www.example.test", &["192.0.2.1"]),
            ("lookup:www", WWW),
        ],
    );
}

fn run(pod: &Pod, questions: &[&str]) -> std::collections::BTreeMap<String, Vec<String>> {
    pod.look_up("node", &[&["-e", PROGRAM, "--"][..], questions].concat())
}
