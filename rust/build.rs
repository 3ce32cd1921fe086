//! Tells the crate which Python it links, and its own tests and examples where that library is.

fn main() {
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
