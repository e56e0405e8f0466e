//! What is HubSpot's own in the OAuth dance
