//! The builder: packages, repositories, images.
