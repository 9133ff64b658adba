//! The builder: packages, repositories, images.

pub mod disk;
pub mod image;
