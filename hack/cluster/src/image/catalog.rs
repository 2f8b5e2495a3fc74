//! Every image that this project builds: data only.
//!
//! The names are the ones that pods ask for, so that nothing has to be remapped. Where a specification of upstream
//! needs more of an image than its name says, the entry says so.

use super::ImageGroup::{self, Cluster, Demo, Own, Upstream};
use super::recipe::Source::{
    BusyboxApplets, Cargo, Debian, DebianPlus, Directory, Link, Module, Program, Text, Tool,
};
use super::recipe::{Base, Entry, Recipe, Run};

/// The recipes of all images.
pub(crate) fn recipes() -> impl Iterator<Item = &'static Recipe> {
    RECIPES.iter()
}

const fn scratch(
    reference: &'static str,
    group: ImageGroup,
    layers: &'static [&'static [Entry]],
    run: Run,
) -> Recipe {
    Recipe { reference, group, base: Base::Scratch, layers, run }
}

const fn debian(
    reference: &'static str,
    group: ImageGroup,
    layers: &'static [&'static [Entry]],
    run: Run,
) -> Recipe {
    Recipe { reference, group, base: Base::Debian, layers, run }
}

const fn entrypoint(entrypoint: &'static [&'static str], cmd: &'static [&'static str]) -> Run {
    Run { entrypoint, cmd, user: "" }
}

const fn command(cmd: &'static [&'static str]) -> Run {
    Run { entrypoint: &[], cmd, user: "" }
}

const fn user(user: &'static str) -> Run {
    Run { entrypoint: &[], cmd: &["/bin/sh"], user }
}

const fn file(path: &'static str, source: super::recipe::Source) -> Entry {
    Entry::new(path, source)
}

const KUBERNETES: &str = "k8s.io/kubernetes";

const PAUSE: &[Entry] = &[file("pause", Program("pause.c"))];

const AGNHOST: &[Entry] = &[
    file("agnhost", Tool("agnhost")),
    // The entry point tests start the program under this second name.
    file("agnhost-2", Link("agnhost")),
    // A DNS server for the specs that bring their own.
    file("coredns", Tool("coredns")),
    file("uploads", Directory),
    // StatefulSet specs GET them; lifecycle specs serve TLS with them.
    file("localhost.crt", Module(KUBERNETES, "test/images/agnhost/porter/localhost.crt")),
    file("localhost.key", Module(KUBERNETES, "test/images/agnhost/porter/localhost.key")),
    file("usr/local/bin/iperf", Link("/usr/bin/iperf")),
    // A user and a group that supplemental group specs expect in the image.
    file("etc/passwd", DebianPlus("etc/passwd", "user-defined-in-image:x:1000:1000::/home/u:/bin/sh\n")),
    file(
        "etc/group",
        DebianPlus(
            "etc/group",
            "user-defined-in-image:x:1000:\ngroup-defined-in-image:x:50000:user-defined-in-image\n",
        ),
    ),
];

const AGNHOST_RUN: Run = entrypoint(&["/agnhost"], &["pause"]);

const BUSYBOX: &[Entry] = &[
    file("bin/busybox", Debian("usr/bin/busybox")),
    file("", BusyboxApplets("/bin/busybox")),
    file("etc/passwd", Text("root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/home:/bin/false\n")),
    file("etc/group", Text("root:x:0:\nnogroup:x:65534:\n")),
    file("etc/nsswitch.conf", Text("hosts: files dns\n")),
    file("tmp", Directory).mode(0o1777),
    file("home", Directory),
    file("root", Directory).mode(0o700),
    file("var/spool/mail", Directory),
];

const NGINX: &[Entry] = &[
    file("etc/nginx/nginx.conf", Text(NGINX_CONF)),
    // `kubectl logs` shows what nginx writes.
    file("var/log/nginx/access.log", Link("/dev/stdout")),
    file("var/log/nginx/error.log", Link("/dev/stderr")),
];

const NGINX_CONF: &str = "\
worker_processes 1;
pid /run/nginx.pid;
events { worker_connections 256; }
http {
    include /etc/nginx/mime.types;
    access_log /var/log/nginx/access.log;
    server {
        listen 80 default_server;
        root /usr/share/nginx/html;
    }
}
";

const NGINX_RUN: Run = command(&["nginx", "-g", "daemon off; error_log /dev/stderr;"]);

const KITTEN: &[Entry] = &[
    file("kitten.jpg", Module(KUBERNETES, "test/images/kitten/html/kitten.jpg")),
    file("data.json", Module(KUBERNETES, "test/images/kitten/html/data.json")),
];

const NAUTILUS: &[Entry] = &[
    file("nautilus.jpg", Module(KUBERNETES, "test/images/nautilus/html/nautilus.jpg")),
    file("data.json", Module(KUBERNETES, "test/images/nautilus/html/data.json")),
];

const RESOURCE_CONSUMER: &[Entry] =
    &[file("consumer", Tool("resource-consumer")), file("consume-cpu", Tool("consume-cpu"))];

const SAMPLE_APISERVER: &[Entry] = &[file("sample-apiserver", Tool("sample-apiserver"))];

const ETCD: &[Entry] =
    &[file("usr/local/bin/etcd", Tool("etcd")), file("usr/local/bin/etcdctl", Tool("etcdctl"))];

const MANAGER: &[Entry] = &[file("trysail-manager", Cargo("trysail-manager", "trysail-manager"))];

const RECIPES: &[Recipe] = &[
    scratch("registry.k8s.io/pause:3.10.2", Cluster, &[PAUSE], entrypoint(&["/pause"], &[])),
    scratch(
        "registry.k8s.io/coredns/coredns:v1.14.7",
        Cluster,
        &[&[file("coredns", Tool("coredns"))]],
        entrypoint(&["/coredns"], &[]),
    ),
    scratch(
        "trysail.dev/trysail-manager:dev",
        Own,
        &[MANAGER],
        Run { entrypoint: &["/trysail-manager"], cmd: &[], user: "65532:65532" },
    ),
    // Two versions, so that there is something to roll out.
    debian("docker.io/library/nginx:1.27", Demo, &[NGINX], NGINX_RUN),
    debian("docker.io/library/nginx:1.28", Demo, &[NGINX], NGINX_RUN),
    // Upstream's suites ask for these two as well.
    scratch("registry.k8s.io/e2e-test-images/busybox:1.37.0-1", Demo, &[BUSYBOX], command(&["sh"])),
    scratch("registry.k8s.io/etcd:3.6.8-0", Demo, &[ETCD], command(&[])),
    // The same programs under two versions: rolling updates go from one to the other.
    debian("registry.k8s.io/e2e-test-images/agnhost:2.63.0", Upstream, &[AGNHOST], AGNHOST_RUN),
    debian("registry.k8s.io/e2e-test-images/agnhost:2.55", Upstream, &[AGNHOST], AGNHOST_RUN),
    scratch("registry.k8s.io/e2e-test-images/busybox:1.36.1-1", Upstream, &[BUSYBOX], command(&["sh"])),
    debian("registry.k8s.io/e2e-test-images/nginx:1.15-4", Upstream, &[NGINX], NGINX_RUN),
    debian("registry.k8s.io/e2e-test-images/nginx:1.27-0", Upstream, &[NGINX], NGINX_RUN),
    debian(
        "registry.k8s.io/e2e-test-images/resource-consumer:1.14",
        Upstream,
        &[RESOURCE_CONSUMER],
        entrypoint(&["/consumer"], &[]),
    ),
    debian("registry.k8s.io/e2e-test-images/nonroot:1.5", Upstream, &[], user("1234")),
    debian(
        "registry.k8s.io/e2e-test-images/kitten:1.8",
        Upstream,
        &[AGNHOST, KITTEN],
        entrypoint(&["/agnhost"], &["test-webserver"]),
    ),
    debian(
        "registry.k8s.io/e2e-test-images/nautilus:1.8",
        Upstream,
        &[AGNHOST, NAUTILUS],
        entrypoint(&["/agnhost"], &["test-webserver"]),
    ),
    debian("registry.k8s.io/e2e-test-images/glibc-dns-testing:2.0.0", Upstream, &[], command(&["/bin/bash"])),
    debian("registry.k8s.io/e2e-test-images/ipc-utils:1.4", Upstream, &[], command(&["/bin/bash"])),
    debian("registry.k8s.io/e2e-test-images/perl:5.26", Upstream, &[], command(&["perl", "-de0"])),
    debian("registry.k8s.io/build-image/distroless-iptables:v0.9.6", Upstream, &[], command(&["/bin/sh"])),
    scratch(
        "registry.k8s.io/e2e-test-images/nonewprivs:1.4",
        Upstream,
        &[&[file("usr/local/bin/nnp", Tool("nonewprivs")).mode(0o6755)]],
        command(&["nnp"]),
    ),
    scratch(
        "registry.k8s.io/e2e-test-images/regression-issue-74839:1.4",
        Upstream,
        &[&[file("regression-issue-74839", Tool("regression-issue-74839"))]],
        entrypoint(&["/regression-issue-74839"], &[]),
    ),
    scratch(
        "registry.k8s.io/e2e-test-images/sample-apiserver:1.29.2",
        Upstream,
        &[SAMPLE_APISERVER],
        entrypoint(&["/sample-apiserver"], &[]),
    ),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::setup::Group;

    /// Two recipes of one name would make it a matter of luck which one a pod gets.
    #[test]
    fn references_are_unique_and_complete() {
        let mut names: Vec<_> = recipes().map(|recipe| recipe.reference).collect();
        assert!(names.iter().all(|name| name.split('/').next().unwrap().contains('.') && name.contains(':')));
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
    }

    /// A recipe that names a binary which nobody builds would fail late, in the middle of an archive.
    #[test]
    fn tools_of_recipes_exist() {
        for entry in recipes().flat_map(|recipe| recipe.layers.iter().copied().flatten()) {
            if let Tool(name) = entry.source {
                assert!(Group::of_tool(name).is_some(), "{name}");
            }
        }
    }

    /// On the Debian base `/bin` and `/lib` are links; an entry below them would replace the link by a directory.
    #[test]
    fn no_entry_shadows_a_link_of_the_base() {
        for recipe in recipes().filter(|recipe| recipe.base == Base::Debian) {
            for entry in recipe.layers.iter().copied().flatten() {
                let top = entry.path.split('/').next().unwrap();
                assert!(
                    !["bin", "sbin", "lib", "lib64"].contains(&top),
                    "{}: {}",
                    recipe.reference,
                    entry.path
                );
            }
        }
    }
}
