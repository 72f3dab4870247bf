use fs_err as fs;

use super::*;

/// Writes a zoo.cfg whose data folder is beside it, with the id if there is one, and reads it.
fn read_cfg(text: &str, my_id: Option<&str>) -> Result<(ZooCfg, tempfile::TempDir), String> {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    fs::create_dir(&data).unwrap();
    if let Some(my_id) = my_id {
        fs::write(data.join("myid"), my_id).unwrap();
    }
    let file = folder.path().join("zoo.cfg");
    fs::write(&file, text.replace("DATA", &data.display().to_string())).unwrap();
    match load_zoo_cfg(&file) {
        Ok(read) => Ok((read, folder)),
        Err(error) => Err(error.to_string().replace(&folder.path().display().to_string(), "FOLDER")),
    }
}

/// As Debian's package brings it, but for the comments.
#[test]
fn the_example_of_the_package_runs_alone() {
    let text =
        "tickTime=2000\ninitLimit=10\nsyncLimit=5\ndataDir=DATA\nclientPort=2181\n#maxClientCnxns=60\n";
    let (ZooCfg { plan, warnings, .. }, _folder) = read_cfg(text, None).unwrap();
    assert_eq!(plan.client_addr.to_string(), "0.0.0.0:2181");
    assert_eq!((plan.member.peers, plan.member.tick), (None, Duration::from_secs(2)));
    assert_eq!(plan.member.address_connections_max, Some(60), "as Apache's server has it");
    assert_eq!(
        warnings,
        [
            "keys not set, though snapshots beyond 3 are removed here all the same, with their logs: autopurge.purgeInterval"
        ]
    );
}

#[test]
fn three_voters_and_an_observer() {
    let text = "tickTime=200\ninitLimit=20\nsyncLimit=6\ndataDir=DATA\ndataLogDir=/log\nclientPortAddress=127.0.0.1\nclientPort=2181\n\
                maxClientCnxns=0\nautopurge.snapRetainCount=5\nautopurge.purgeInterval=1\nsnapCount=1000\nmaxSessionTimeout=90000\n\
                4lw.commands.whitelist=srvr, ruok, srst\nreadonlymode.enabled=true\nlocalSessionsEnabled=true\n\
                localSessionsUpgradingEnabled=true\nadmin.enableServer=false\nmyOwn=1\n\
                server.1=zoo1:2888:3888\nserver.2=[::1]:2889:3889:participant;2182\nserver.3=a:1:2|b:1:2\n\
                server.4=zoo4:2888:3888:observer;127.0.0.4:2181\nDigestAuthenticationProvider.superDigest=super:secret=\n";
    let (ZooCfg { plan, warnings, .. }, _folder) = read_cfg(text, Some("3\n")).unwrap();
    let member = plan.member;
    let peers = member.peers.unwrap();
    assert_eq!((member.server_id.get(), peers.init_limit, peers.sync_limit), (3, 20, 6));
    assert_eq!((member.snapshots_kept, member.snapshot_txns, member.read_only_mode), (5, 1000, true));
    assert_eq!(member.log_dir.as_deref(), Some(Path::new("/log")));
    assert_eq!(member.local_sessions, LocalSessionMode::Upgraded);
    assert_eq!(member.address_connections_max, None);
    let timeouts = member.session_timeouts.unwrap();
    assert_eq!((timeouts.min, timeouts.max), (Duration::from_millis(400), Duration::from_secs(90)));
    assert_eq!(member.four_letter_words, [FourLetterWord::Srvr, FourLetterWord::Ruok]);
    let text = peers.members.to_config_text();
    assert_eq!(
        text,
        "server.1=zoo1:2888:3888:participant\nserver.2=[::1]:2889:3889:participant;0.0.0.0:2182\n\
         server.3=a:1:2:participant\nserver.4=zoo4:2888:3888:observer;127.0.0.4:2181\nversion=0"
    );
    let warnings = warnings.join("\n");
    assert!(
        warnings.contains(
            "keys without effect here: autopurge.purgeInterval, admin.enableServer; not known: myOwn"
        ),
        "{warnings}"
    );
    assert!(
        warnings.contains("srst") && warnings.contains("superDigest") && !warnings.contains("secret"),
        "{warnings}"
    );
}

#[test]
fn dangerous_differences_are_refused_and_every_mistake_is_told_at_once() {
    let text = "tickTime=5\nsyncLimit=0\ndataDir=DATA\ndataLogDir=\nclientPort=none\nforceSync=no\nskipACL=yes\n\
                reconfigEnabled=true\ngroup.1=1:2\nweight.1=2\nelectionAlg=1\nleaderServes=no\nsslQuorum=true\n\
                secureClientPort=2281\nsnapshot.trust.empty=true\nserver.0=a:1:2\nserver.1=a\nserver.2=a:1:1\nserver.5=b:1:2\n";
    let error = read_cfg(text, Some("9")).map(drop).unwrap_err();
    let lines = [
        "zoo.cfg:1:1: tickTime: \"5\"",
        "zoo.cfg:2:1: syncLimit: ",
        "zoo.cfg:5:1: clientPort: ",
        "zoo.cfg:6:1: forceSync: ",
        "zoo.cfg:7:1: skipACL: ",
        "zoo.cfg:8:1: reconfigEnabled: ",
        "zoo.cfg:9:1: group.1: ",
        "zoo.cfg:10:1: weight.1: ",
        "zoo.cfg:11:1: electionAlg: ",
        "zoo.cfg:12:1: leaderServes: ",
        "zoo.cfg:14:1: secureClientPort: ",
        "zoo.cfg:15:1: snapshot.trust.empty: ",
        "zoo.cfg:16:1: server.0: ",
        "zoo.cfg:17:1: server.1: ",
        "zoo.cfg:1:1: initLimit: it is missing",
        "zoo.cfg:1:1: server: FOLDER/data/myid says 9",
        "zoo.cfg:1:1: server: member 2 listens on a:1 for learners and for votes",
    ];
    for line in lines {
        assert!(error.contains(line), "{line} in\n{error}");
    }
    assert_eq!(error.lines().count(), lines.len(), "{error}");
}

#[test]
fn a_member_must_know_which_one_it_is() {
    let text = "initLimit=10\nsyncLimit=5\ndataDir=DATA\nclientPort=2181\nserver.1=a:1:2\nserver.2=b:1:2\n";
    for (my_id, expected) in
        [(None, "myid"), (Some(""), "holds \"\""), (Some("x"), "holds \"x\""), (Some("0"), "holds \"0\"")]
    {
        let error = read_cfg(text, my_id).map(drop).unwrap_err();
        assert!(error.contains(expected) && error.contains("write this member's id"), "{error}");
    }
    assert!(read_cfg(text, Some(" 2 \nmore")).is_ok());
}

#[test]
fn tls_between_members_takes_pem_stores() {
    let text = "initLimit=10\nsyncLimit=5\ndataDir=DATA\nclientPort=2181\nserver.1=a:1:2\nserver.2=b:1:2\nsslQuorum=true\n";
    let error = read_cfg(text, Some("1")).map(drop).unwrap_err();
    assert!(error.contains("ssl.quorum.keyStore.location"), "{error}");
    let text = format!(
        "{text}ssl.quorum.keyStore.location=/k.pem\nssl.quorum.keyStore.type=PEM\nssl.quorum.trustStore.location=/t.pem\n\
         ssl.quorum.hostnameVerification=false\nssl.quorum.clientAuth=want\n"
    );
    let (ZooCfg { plan, .. }, _folder) = read_cfg(&text, Some("1")).unwrap();
    let expected = TlsFiles {
        cert: "/k.pem".into(),
        key: "/k.pem".into(),
        ca: "/t.pem".into(),
        client_auth: ClientAuth::Want,
        verify_hostname: false,
    };
    assert_eq!(plan.member.peers.unwrap().tls, Some(expected));
    let jks = text.replace("PEM", "JKS") + "ssl.quorum.keyStore.password=hush\n";
    let error = read_cfg(&jks, Some("1")).map(drop).unwrap_err();
    assert!(
        error.contains("convert the store to PEM") && error.contains("decrypt it") && !error.contains("hush"),
        "{error}"
    );
}

#[test]
fn a_switch_that_is_misspelt_is_not_off_for_that() {
    let text = "dataDir=DATA\nclientPort=2181\nsslQuorum=ture\nssl.quorum.hostnameVerification=yes\n\
                quorumListenOnAllIPs=1\nreadonlymode.enabled=TRUE\nlocalSessionsEnabled=\n";
    let error = read_cfg(text, None).map(drop).unwrap_err();
    let lines = [
        "zoo.cfg:3:1: sslQuorum: \"ture\" is neither; write true or false",
        "zoo.cfg:4:1: ssl.quorum.hostnameVerification: \"yes\" is neither",
        "zoo.cfg:5:1: quorumListenOnAllIPs: ",
        "zoo.cfg:7:1: localSessionsEnabled: ",
    ];
    for line in lines {
        assert!(error.contains(line), "{line} in\n{error}");
    }
    assert_eq!(error.lines().count(), lines.len(), "{error}");
}

const TWO: &str = "initLimit=10\nsyncLimit=5\ndataDir=DATA\nserver.1=a:2888:3888;127.0.0.1:2181\nserver.2=b:2888:3888;2182\n";

#[test]
fn clients_connect_where_the_line_of_the_server_says() {
    for (more, id, expected) in [
        ("", "1", "127.0.0.1:2181"),
        ("", "2", "0.0.0.0:2182"),
        ("clientPort=2181\n", "1", "127.0.0.1:2181"),
        ("clientPort=2181\nclientPortAddress=0.0.0.0\n", "1", "127.0.0.1:2181"),
    ] {
        let (ZooCfg { plan, .. }, _folder) = read_cfg(&format!("{TWO}{more}"), Some(id)).unwrap();
        assert_eq!(plan.client_addr.to_string(), expected, "{more:?} {id}");
    }
    for more in ["clientPort=2181\n", "clientPort=2182\nclientPortAddress=127.0.0.9\n"] {
        let error = read_cfg(&format!("{TWO}{more}"), Some("2")).map(drop).unwrap_err();
        assert!(error.contains("clientPort: the line of this server says 0.0.0.0:2182"), "{error}");
    }
}

#[test]
fn hosts_of_this_machine_may_be_names() {
    let alone =
        |host: &str| read_cfg(&format!("dataDir=DATA\nclientPort=2181\nclientPortAddress={host}\n"), None);
    for (host, expected) in [("localhost", "127.0.0.1:2181"), ("[::1]", "[::1]:2181"), ("::1", "[::1]:2181")]
    {
        let (ZooCfg { plan, .. }, _folder) = alone(host).unwrap();
        assert_eq!(plan.client_addr.to_string(), expected, "{host}");
    }
    let error = alone("no.such.host.invalid").map(drop).unwrap_err();
    assert!(
        error.contains("clientPortAddress: \"no.such.host.invalid\" is no address, nor a name"),
        "{error}"
    );
    let text = TWO.replace("127.0.0.1:2181", "localhost:2181");
    let (ZooCfg { plan, .. }, _folder) = read_cfg(&text, Some("1")).unwrap();
    assert_eq!(plan.client_addr.to_string(), "127.0.0.1:2181");
}

#[test]
fn an_observer_is_never_alone() {
    let text = "initLimit=10\nsyncLimit=5\ndataDir=DATA\nclientPort=2181\nserver.1=a:1:2:observer\n";
    let error = read_cfg(text, Some("1")).map(drop).unwrap_err();
    assert!(error.contains("server: no member votes"), "{error}");
}

#[test]
fn metrics_are_told_where_prometheus_looks_for_them() {
    let text = "dataDir=DATA\nclientPort=2181\nmetricsProvider.httpPort=7000\n";
    let (ZooCfg { plan, status_place, .. }, _folder) = read_cfg(text, None).unwrap();
    assert_eq!(plan.status_addr.to_string(), EnsembleConfig::STATUS_ADDR, "Apache's default tells nobody");
    assert_eq!(status_place, StatusPlace::Default);
    let text = format!(
        "{text}metricsProvider.className=org.apache.zookeeper.metrics.prometheus.PrometheusMetricsProvider\n\
         metricsProvider.exportJvmInfo=true\n"
    );
    let (ZooCfg { plan, status_place, warnings }, _folder) = read_cfg(&text, None).unwrap();
    assert_eq!((plan.status_addr.to_string().as_str(), status_place), ("0.0.0.0:7000", StatusPlace::Given));
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(warnings[0].contains("metricsProvider.exportJvmInfo"), "{warnings:?}");
    let (ZooCfg { plan, .. }, _folder) =
        read_cfg(&format!("{text}metricsProvider.httpHost=127.0.0.1\n"), None).unwrap();
    assert_eq!(plan.status_addr.to_string(), "127.0.0.1:7000");
}

#[test]
fn members_in_a_file_of_their_own() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("myid"), "2").unwrap();
    let path = |name: &str| folder.path().join(name);
    let write = |zoo_cfg: &str, dynamic: &str| {
        let dynamic_file = path("zoo.cfg.dynamic.100000000");
        fs::write(&dynamic_file, dynamic).unwrap();
        let text = format!(
            "initLimit=10\nsyncLimit=5\ndataDir={}\ndynamicConfigFile={}\n{zoo_cfg}",
            folder.path().display(),
            dynamic_file.display()
        );
        fs::write(path("zoo.cfg"), text).unwrap();
        load_zoo_cfg(&path("zoo.cfg"))
            .map_err(|error| error.to_string().replace(&folder.path().display().to_string(), "FOLDER"))
    };
    let members =
        "server.1=a:2888:3888:participant;2181\nserver.2=b:2888:3888:participant;2181\nversion=100000000\n";
    let ZooCfg { plan, warnings, .. } = write("", members).unwrap();
    assert_eq!((plan.member.server_id.get(), plan.client_addr.port()), (2, 2181));
    assert_eq!(warnings.join("\n").matches("dynamicConfigFile").count(), 1, "{warnings:?}");

    let error = write("", "\nserver.1=a\nserver.2=b:2888:3888;2181\n").unwrap_err();
    assert!(
        error.contains("zoo.cfg:4:1: FOLDER/zoo.cfg.dynamic.100000000:2: server.1: \"a\" is no"),
        "{error}"
    );
    let error = write("server.3=c:2888:3888\n", members).unwrap_err();
    assert!(
        error.contains("zoo.cfg:5:1: server.3: members stand in FOLDER/zoo.cfg.dynamic.100000000"),
        "{error}"
    );
}

/// A ZooKeeper with TLS between its members, as operators write it.
#[test]
fn stores_of_java_are_refused_and_pem_is_taken() {
    let tls = |stores: &str| {
        format!(
            "{TWO}sslQuorum=true\nserverCnxnFactory=org.apache.zookeeper.server.NettyServerCnxnFactory\n{stores}"
        )
    };
    let pem = tls("ssl.quorum.keyStore.location=/tls/node.pem\nssl.quorum.trustStore.location=/tls/ca.pem\n\
                   ssl.quorum.keyStore.type=PEM\nssl.quorum.trustStore.type=PEM\nssl.quorum.hostnameVerification=false\n\
                   sslQuorumReloadCertFiles=true\nssl.quorum.protocol=TLSv1.3\n");
    let (ZooCfg { plan, warnings, .. }, _folder) = read_cfg(&pem, Some("1")).unwrap();
    let expected = TlsFiles {
        cert: "/tls/node.pem".into(),
        key: "/tls/node.pem".into(),
        ca: "/tls/ca.pem".into(),
        client_auth: ClientAuth::Need,
        verify_hostname: false,
    };
    assert_eq!(plan.member.peers.unwrap().tls, Some(expected));
    assert!(
        warnings[0].contains("sslQuorumReloadCertFiles") && !warnings[0].contains("not known"),
        "{warnings:?}"
    );

    let java = tls("ssl.quorum.keyStore.location=/tls/node.JKS\nssl.quorum.keyStore.password=secret\n\
                    ssl.quorum.trustStore.location=/tls/trust.p12\nssl.quorum.trustStore.type=PKCS12\nssl.quorum.crl=true\n");
    let error = read_cfg(&java, Some("1")).map(drop).unwrap_err();
    for path in ["keyStore.location", "keyStore.password", "trustStore.location", "trustStore.type", "crl"] {
        assert_eq!(error.matches(&format!("ssl.quorum.{path}: ")).count(), 1, "{path} in\n{error}");
    }
    assert!(!error.contains("secret") && error.lines().count() == 5, "{error}");
}

/// What the image of a well-known chart writes.
#[test]
fn a_file_made_for_kubernetes() {
    let text = "tickTime=2000\ninitLimit=10\nsyncLimit=5\ndataDir=DATA\nclientPort=2181\nmaxClientCnxns=60\n\
                autopurge.snapRetainCount=3\nautopurge.purgeInterval=0\npreAllocSize=65536\nsnapCount=100000\n\
                maxCnxns=0\nreconfigEnabled=false\nquorumListenOnAllIPs=true\n4lw.commands.whitelist=srvr, mntr, ruok\n\
                maxSessionTimeout=40000\nadmin.serverPort=8080\nadmin.enableServer=true\nsnapSizeLimitInKb=-1\n\
                server.1=zookeeper-0.zookeeper-headless.default.svc.cluster.local:2888:3888;2181\n\
                server.2=zookeeper-1.zookeeper-headless.default.svc.cluster.local:2888:3888;2181\n\
                server.3=zookeeper-2.zookeeper-headless.default.svc.cluster.local:2888:3888;2181\n";
    let (ZooCfg { plan, warnings, .. }, _folder) = read_cfg(text, Some("3\n")).unwrap();
    let member = plan.member;
    assert_eq!(
        (member.server_id.get(), member.snapshot_bytes),
        (3, MemberSettings::default().snapshot_bytes)
    );
    assert_eq!(member.connections_max, MemberSettings::default().connections_max);
    assert_eq!(member.address_connections_max, Some(60));
    assert_eq!(member.peers.unwrap().listen_host.as_deref(), Some("0.0.0.0"));
    assert_eq!(plan.client_addr.to_string(), "0.0.0.0:2181");
    let expected = [
        "autopurge.purgeInterval=0 does not keep everything here: after each new snapshot those beyond 3 are removed, with \
         their logs; say how many to keep with autopurge.snapRetainCount",
        "keys without effect here: preAllocSize, admin.serverPort, admin.enableServer",
    ];
    assert_eq!(warnings, expected);
}
