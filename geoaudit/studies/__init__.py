"""The paper's two land-cover studies as commands, each with the controls it was published without (paper section 5)."""
