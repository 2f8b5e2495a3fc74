//! What comes after all other tests: a look back at what they made the managers ask for, and the end of the product.

mod permissions;
mod uninstall;
