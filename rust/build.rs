//! Tells the crate which Python it links, and its own tests and examples where that library is.

fn main() {
    // The guide's examples are tested where the guide is: in the repository, not in the published package.
    println!("cargo:rustc-check-cfg=cfg(dspy_live_repository)");
    println!("cargo:rerun-if-changed=build.rs");
    if std::path::Path::new("../docs/guides/rust.md").exists() {
        println!("cargo:rustc-cfg=dspy_live_repository");
    }
    #[cfg(feature = "embedded")]
    {
        let config = pyo3_build_config::get();
        let version = config.version();
        println!("cargo:rustc-env=DSPY_LIVE_PYTHON={}.{}", version.major, version.minor);
        if config.shared() {
            if let (Some(folder), false) = (config.lib_dir(), cfg!(windows)) {
                println!("cargo:rustc-link-arg=-Wl,-rpath,{folder}");
            }
        }
        println!("cargo:rerun-if-env-changed=PYO3_PYTHON");
    }
}
