//! Sets `cfg(awslc)` when `openssl-sys` was built on AWS-LC.
//!
//! `openssl-sys` has `links = "openssl"`, so cargo hands what its build script
//! announced to the build scripts of its direct dependents as `DEP_OPENSSL_*`.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rustc-check-cfg=cfg(awslc)");

    let announced = |key: &str| std::env::var_os(format!("DEP_OPENSSL_{key}")).is_some();
    if announced("AWSLC") || announced("AWSLC_FIPS") {
        println!("cargo:rustc-cfg=awslc");
    }
}
