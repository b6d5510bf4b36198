// Pictures that are pasted anywhere on the page go where dropped ones go.
() => {
    document.addEventListener('paste', event => {
        const input = document.querySelector('#pictures input[type=file]');
        const files = event.clipboardData.files;
        if (input && files.length) {
            event.preventDefault();
            input.files = files;
            input.dispatchEvent(new Event('change', {bubbles: true}));
        }
    });
    document.documentElement.dataset.paste = 'taken';
}
